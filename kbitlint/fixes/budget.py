"""The memory of training, side by side: the model as it is, after PEFT's preparation, after kbitlint's fix.

Imports of torch, PEFT and ``kbitlint.model`` are inside functions: audits of scripts and files need none of them.
"""

from __future__ import annotations

import dataclasses
import warnings
from typing import TYPE_CHECKING, Any

from kbitlint import engine, registry
from kbitlint.audit.options import is_left_out
from kbitlint.audit.run import context_of, model_of
from kbitlint.errors import KbitlintError, TargetError, did_you_mean, one_line
from kbitlint.extras import require
from kbitlint.fixes.model import fix_model
from kbitlint.report import MemoryReport
from kbitlint.result import StateMemory
from kbitlint.violation import Safety, Surface

if TYPE_CHECKING:
    from collections.abc import Callable

    from kbitlint.audit.open import OpenTarget
    from kbitlint.audit.options import Options
    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts
    from kbitlint.rule import Rule

#: kbitlint.model.trace.memory has the state that each optimizer keeps
OPTIMIZERS = ("adamw", "adamw8bit", "paged_adamw_8bit", "sgd")


@dataclasses.dataclass(frozen=True, slots=True)
class Lora:
    """The LoRA that is attached for the measurement, as PEFT attaches it."""

    rank: int
    targets: str | tuple[str, ...]


def parse_lora(text: str) -> Lora:
    """Return the LoRA of a text like ``r=16,targets=q_proj+v_proj``.

    Raises:
        KbitlintError: A key or its value is wrong; the message names it.
    """
    given = dict.fromkeys(("r", "targets"), "") | {"r": "16", "targets": "all-linear"}
    for part in filter(None, text.split(",")):
        key, separator, value = part.partition("=")
        if key not in given or not separator or not value:
            hint = did_you_mean(key, given)
            raise KbitlintError(f"--lora {text}: {part!r} is none of r=RANK, targets=all-linear, targets=q_proj+v_proj{hint}")
        given[key] = value
    if not given["r"].isdigit() or not int(given["r"]):
        raise KbitlintError(f"--lora {text}: r must be a positive number, not {given['r']!r}")
    targets = given["targets"]
    return Lora(int(given["r"]), targets if targets == "all-linear" else tuple(targets.split("+")))


def budget_of(
    model: Any,
    context: TrainingContext,
    *,
    lora: Lora | None,
    optimizer: str,
    every: int | None = None,
    named: tuple[str, tuple[str, ...]] = ("", ()),
    against_peft: bool = True,
) -> MemoryReport:
    """Measure a model as it is, after PEFT's preparation and after kbitlint's fix; it is only read.

    If unsafe fixes give back memory, the model is measured with them too.

    Args:
        model: A model, live or on meta.
        context: Autocast, batch size and sequence length (1 and 2048 if they are not set).
        lora: The LoRA to attach if the model has no adapters.
        optimizer: One of ``OPTIMIZERS``.
        every: Also measure with every n-th layer checkpointed; None measures with none and with all.
        named: The target, and the notes on how it was built.
        against_peft: Whether to measure PEFT's preparation too.
    """
    from kbitlint.model.inspect.walk import collect
    from kbitlint.model.trace.memory import measure

    _check_arguments(optimizer, every)
    name, notes = named
    facts = collect(model)
    rules = registry.select((), ())

    def fixed(twin: Any) -> None:
        fix_model(twin, rules, context, Safety.SAFE, trace=False)

    def narrowed(twin: Any) -> None:
        fix_model(twin, rules, context, Safety.UNSAFE, trace=False)

    states: list[StateMemory] = []
    preparations: dict[str, Callable[[Any], None] | None] = {"as it is": None}
    if against_peft:
        preparations["PEFT's prepare"] = _peft_prepared
    preparations["kbitlint's fix"] = fixed
    if _gains_by_unsafe_fixes(facts, rules, context):
        preparations["unsafe fixes"] = narrowed
    missing = None if facts.has_adapters else lora
    for state, prepare in preparations.items():
        try:
            twin = _prepared_twin(model, prepare, missing)
        except KbitlintError:
            raise
        except Exception as error:  # noqa: BLE001  # PEFT's prepare refuses some models, which is a result
            states.append(StateMemory(state, {}, 0, 0, {}, one_line(error)))
            continue
        states.append(measure(state, twin, context, optimizer=optimizer, every=every))
    if not facts.has_adapters and lora is not None:
        targets = lora.targets if isinstance(lora.targets, str) else ", ".join(lora.targets)
        notes = (*notes, f"with LoRA r={lora.rank} on {targets} attached for this")
    batch = (context.batch_size or 1, context.seq_len or 2048)
    autocast = None if context.autocast_dtype == "float32" else context.autocast_dtype
    return MemoryReport(name, facts.summary(), batch, optimizer, autocast, tuple(states), notes)


def _gains_by_unsafe_fixes(facts: ModelFacts, rules: tuple[Rule, ...], context: TrainingContext) -> bool:
    """Return whether an unsafe fix gives back memory: it is then a state of its own."""
    violations = engine.run(rules, {Surface.MODEL: facts}, context).violations
    unsafe = [v.fix for v in violations if v.fix is not None and v.fix.safety is Safety.UNSAFE]
    return any(fix.adds_bytes < 0 for fix in unsafe)


def _prepared_twin(model: Any, prepare: Callable[[Any], None] | None, lora: Lora | None) -> Any:
    """Return a copy of the model, prepared as before adapters were attached, with a LoRA if one is given."""
    from kbitlint.model.trace.twin import twin_of

    twin: Any = twin_of(model)
    if prepare is not None:
        _as_before_adapters(twin, prepare)
    return twin if lora is None else _adapted(twin, lora)


def _check_arguments(optimizer: str, every: int | None) -> None:
    if optimizer not in OPTIMIZERS:
        raise KbitlintError(f"optimizer {optimizer!r} is none of {', '.join(OPTIMIZERS)}{did_you_mean(optimizer, OPTIMIZERS)}")
    if every is not None and every < 2:
        raise KbitlintError(f"every must be 2 or more, not {every}")


def _as_before_adapters(twin: Any, prepare: Callable[[Any], None]) -> None:
    """Prepare the base of a model as if its adapters were attached later: their trainable parameters stay trainable."""
    from kbitlint.model.inspect.walk import collect, named_modules
    from kbitlint.model.layers.adapters import base_of

    added = {parameter.path for parameter in collect(twin).parameters if parameter.adapter and parameter.requires_grad}
    prepare(base_of(twin))
    for path, module in named_modules(twin):
        for name, parameter in module.named_parameters(recurse=False):
            if (f"{path}.{name}" if path else name) in added:
                parameter.requires_grad = True


def _peft_prepared(base: Any) -> None:
    peft = require("peft", "the comparison with PEFT's prepare")
    peft.prepare_model_for_kbit_training(base, gradient_checkpointing_kwargs={"use_reentrant": False})


def _adapted(twin: Any, lora: Lora) -> Any:
    peft = require("peft", "--lora")
    import torch

    targets = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # PEFT warns of patterns that it made itself
            return peft.get_peft_model(twin, peft.LoraConfig(r=lora.rank, target_modules=targets))
    except Exception as error:
        raise KbitlintError(f"--lora: PEFT cannot attach it: {one_line(error)}") from error


def memory_of(opened: OpenTarget, options: Options, shape: tuple[int | None, int | None], **chosen: Any) -> MemoryReport:
    """Return what one training step of an open target takes.

    Args:
        opened: The target.
        options: ``context`` gives the batch that ``shape`` leaves open.
        shape: (sequences, tokens a sequence); None for those of the context.
        **chosen: As for ``budget_of``: ``lora``, ``optimizer``, ``every``.

    Raises:
        TargetError: The target holds no model, or is a function that must not run.
    """
    from kbitlint.model.isolation import quiet

    target = opened.target
    if is_left_out(target, options):
        raise TargetError(target.text, "is a function, and functions are not run (run=False)")
    if opened.live is None:
        raise TargetError(target.text, "holds no model whose memory could be measured")
    context = context_of(opened.live, options.context)
    batch, seq_len = (given or known for given, known in zip(shape, (context.batch_size, context.seq_len), strict=True))
    context = dataclasses.replace(context, batch_size=batch, seq_len=seq_len)
    with quiet(), opened.confined():
        return budget_of(model_of(opened.live), context, named=(target.text, opened.notes), **chosen)
