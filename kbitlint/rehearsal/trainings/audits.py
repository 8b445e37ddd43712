"""The audit of a training that a rehearsed script reached: its model, its step on the batch, its optimizer."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kbitlint import api, registry
from kbitlint.audit.options import options_of
from kbitlint.audit.run import context_of, model_of
from kbitlint.audit.turn import turn
from kbitlint.context import Strategy, TrainingContext
from kbitlint.errors import KbitlintError, one_line
from kbitlint.facts.rehearsal import BatchFacts
from kbitlint.integrations import exchange, ranks
from kbitlint.model.inputs.supplied import supplied
from kbitlint.model.layers import adapters
from kbitlint.rehearsal.inside import peers
from kbitlint.rehearsal.messages import Measured, Training
from kbitlint.report import Report
from kbitlint.result import Skip
from kbitlint.target import held
from kbitlint.violation import Surface

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kbitlint.rehearsal.inside.record import Record
    from kbitlint.rehearsal.messages import Measure

#: seconds that a rank waits for the audits of the others: longer than ranks of one machine differ
_PATIENCE = 120.0


def audit_training(record: Record, live: Any, inputs: Mapping[str, Any], optimizer: Any, line: int) -> None:
    """Audit a training and send its report.

    Args:
        record: The record of the rehearsal.
        live: The Trainer, or the model of a loop.
        inputs: The first batch, by the names of the model's arguments.
        optimizer: The optimizer of the training; None if it has none yet.
        line: The line of the script that started it.
    """
    record.trainings += 1
    if record.request.measure is not None:
        _measure(record, record.request.measure, live, inputs, line)
        return
    with record.pause():
        try:
            report = _report(record, live, inputs, optimizer)
        except KbitlintError as error:
            report = Report("", skips=(Skip("", Surface.MODEL, f"line {line}: the training could not be audited: {error}"),))
        batch = batch_facts(record, model_of(live), inputs, line)
    record.send(Training(report, line, batch))


def _measure(record: Record, measure: Measure, live: Any, inputs: Mapping[str, Any], line: int) -> None:
    """Measure a training and send what it takes.

    A length that nothing sets is that of the first batch, if its data are the user's.
    """
    arguments = dict(measure.arguments)
    with record.pause():
        context = context_of(live, _launched(record))
        batch = batch_facts(record, model_of(live), inputs, line)
        if context.seq_len is None and arguments.get("seq_len") is None and batch is not None and batch.genuine:
            arguments["seq_len"] = batch.shape[1]
        try:
            report = getattr(api, measure.function)(live, context=context, **arguments)
        except KbitlintError as error:
            record.send(Measured(line, failure=str(error)))
        except Exception as error:  # noqa: BLE001  # kbitlint's own fault, which must not look like the script's
            record.send(Measured(line, failure=f"an error of kbitlint's own: {one_line(error)}"))
        else:
            record.send(Measured(line, report))


def _report(record: Record, live: Any, inputs: Mapping[str, Any], optimizer: Any) -> Report:
    options = _options(record)
    context = context_of(live, _launched(record))
    model = model_of(live)
    options["context"] = context
    chosen = options_of(options)
    rules = registry.select(chosen.select, chosen.ignore, chosen.rule_options)

    def look() -> ranks.RankAudit:
        with turn(held(live)):
            own = dict(inputs)
            with supplied(own) if own else nullcontext():
                report = api.check(live, **options)
            if own and any(skip.surface is Surface.TRACE and not skip.code for skip in report.skips):
                again = api.check(live, **options)  # the step may need another batch than this one
                if len(again.ran) > len(report.ran):
                    report = again
            return ranks.seen(live, report, context, optimizer, None if live is model else live)

    training = model.training
    model.train()
    try:
        return ranks.over_ranks(_group(record), look, rules, _PATIENCE).report
    finally:
        model.train(training)


def _group(record: Record) -> exchange.Group | None:
    """Return the ranks of the rehearsal, once the script has let them meet; None for one process."""
    if peers.count_of(record) == 1 or not torch.distributed.is_initialized():
        return None
    return exchange.group()


def _options(record: Record) -> dict[str, Any]:
    """Return the options of the rehearsal as arguments of ``kbitlint.check``, which are plain data."""
    given = record.request.options
    kept = ("select", "ignore", "rule_options", "trace", "limits", "norms", "outline")
    return {name: getattr(given, name) for name in kept}


def _launched(record: Record) -> TrainingContext:
    """Return the context that the launcher gives: its file, and the number of ranks."""
    command, context = record.request.command, record.request.options.context
    if command.launch_file:
        file = Path(record.request.working_folder) / command.launch_file
        context = TrainingContext.from_launcher_file(file).updated(context)
    if command.ranks is not None and command.ranks > 1:
        known = context.strategy or Strategy.DDP
        context = dataclasses.replace(context, strategy=known, world_size=context.world_size or command.ranks)
    return context


def batch_facts(record: Record, model: nn.Module, inputs: Mapping[str, Any], line: int) -> BatchFacts | None:
    """Return the facts of a batch; None if it holds no token ids."""
    tokens, labels = inputs.get("input_ids"), inputs.get("labels")
    if (
        not isinstance(tokens, Tensor)
        or tokens.is_meta
        or tokens.is_floating_point()
        or tokens.dim() != 2
        or not tokens.numel()
    ):
        return None
    base: Any = adapters.base_of(model)
    embedding = adapters.input_embedding(base)
    weight = getattr(embedding, "weight", None)
    config: Any = getattr(base, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    counted = None
    if isinstance(labels, Tensor) and not labels.is_meta and labels.shape == tokens.shape:
        counted = int((labels != -100).sum())
    return BatchFacts(
        file=record.request.command.script,
        line=line,
        shape=tuple(tokens.shape),
        largest_id=int(tokens.max()),
        rows=0 if weight is None else int(weight.shape[0]),
        positions=_positions(base, text),
        labelled=counted,
        genuine=not record.synthetic_data and not record.synthetic_words,
    )


def _positions(base: nn.Module, text: Any) -> int | None:
    """Return the rows of a learned table of positions; None if positions are computed, and so are not bounded."""
    most = getattr(text, "max_position_embeddings", None) or getattr(text, "n_positions", None)
    if not isinstance(most, int):
        return None
    for name, module in base.named_modules():
        place = name.rpartition(".")[2]
        if isinstance(module, nn.Embedding) and ("position" in place or place == "wpe"):
            return int(module.weight.shape[0]) - int(getattr(module, "offset", 0))
    return None
