"""The public functions: check, fix, fit, plan, undo, memory and assert_ready; `fixes/prepared.py` has the others.

Notebooks, tests and the command line call them. A target is parsed here, once.
Imports of torch and ``kbitlint.model`` are inside functions: audits of scripts and files need none of them.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from kbitlint import registry
from kbitlint.audit.keywords import Keywords, with_keywords
from kbitlint.audit.open import open_target, target_of
from kbitlint.audit.options import DEFAULT_LORA, options_of
from kbitlint.audit.run import audit, model_of
from kbitlint.audit.turn import turn
from kbitlint.engine import needs_model
from kbitlint.errors import KbitlintError, TargetError, did_you_mean
from kbitlint.limits import held_to
from kbitlint.output.text import render
from kbitlint.target import Kind, held
from kbitlint.violation import Edit, Safety, Severity

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Unpack

    from kbitlint.context import TrainingContext
    from kbitlint.fit_result import Owner
    from kbitlint.fixes.fit import Asked
    from kbitlint.report import Report
    from kbitlint.step_report import FitReport, MemoryReport
    from kbitlint.target import Target


@with_keywords
def check(target: Any, **options: Unpack[Keywords]) -> Report:
    """Audit a model, a Trainer, or the target that a string names.

    Args:
        target: A ``torch.nn.Module`` (a PeftModel too), a ``Trainer``, or a target string: a checkpoint or adapter
            folder, a Hub id, ``file.py:factory``, ``pkg.mod:factory``, a script, notebook or training configuration,
            or a folder of them.
        **options: ``select`` and ``ignore`` (codes, prefixes or slugs), ``rule_options`` (options of rules, by code) and
            ``context`` (a TrainingContext). For named targets also ``quantize`` (nf4, fp4, int8 or none), ``meta``,
            ``trust_remote_code``, and ``run=False`` to skip functions. ``trace=False`` runs no training step without
            weights. ``optimizer`` is compared with the parameters that train. ``plan`` adds what a fix would do.
            ``inputs`` is a batch for that step, and ``step`` a function of a model and ``inputs`` that returns the loss.
            ``outline`` and ``memory`` add the modules, and the memory of a step before and after the fix; the HTML page
            shows both.

    Raises:
        KbitlintError: The target cannot be read, built or run; the message is one line.
    """
    chosen = options_of(options)
    rules = registry.select(chosen.select, chosen.ignore, chosen.rule_options)
    parsed = target_of(target)
    with held_to(chosen.limits), turn(parsed, chosen):
        opened = open_target(parsed, chosen, model=needs_model(rules))
        report = audit(opened, rules, chosen)
        if not (chosen.plan or chosen.memory):
            return report
        from kbitlint.fixes.preview import preview  # an audit alone plans no fix

        return preview(report, opened, rules, chosen)


@with_keywords
def fix(
    target: Any,
    *,
    unsafe: bool = False,
    device: str | None = None,
    probe: bool | None = None,
    optimizer: Any = None,
    **options: Unpack[Keywords],
) -> Report:
    """Audit, fix what can be fixed, and audit again.

    A live model, or the model of a Trainer, is fixed in place. A checkpoint folder is loaded on ``device``, fixed and
    probed there, and the edits are written to ``kbitlint.json`` beside config.json. For a factory the report holds the
    lines to add.

    Args:
        target: As for ``check``.
        unsafe: Also apply fixes that may change the computation or the trained parameters.
        device: The device that named targets are loaded on: ``cuda`` (the default) or ``cpu``.
        probe: Whether to run one forward and backward afterwards; None for named targets only.
        optimizer: An optimizer that holds parameters of a live model. If a parameter changes its dtype, the state of the
            optimizer follows. A Trainer's own is found, and so is every ``torch.optim.Optimizer`` of this process.
        **options: As for ``check``; also ``norms``, ``output`` (the file for the edits of a folder), ``probe_batch`` and
            ``probe_seq`` (sequences in the batch of the probe, and tokens in each). ``norms`` is ``transparent``, ``keep``,
            or ``peft``: every half-precision parameter in float32, as PEFT's prepare does.

    Raises:
        KbitlintError: As for ``check``; or there is no CUDA and no other device is named; or the state of an optimizer
            cannot follow. The model is then left as it was.
    """
    chosen = options_of(options)
    rules = registry.select(chosen.select, chosen.ignore, chosen.rule_options)
    parsed = target_of(target)
    if optimizer is not None:
        _check_optimizer(optimizer, parsed)
    from kbitlint.fixes import run  # an audit changes nothing

    fixing = run.Fixing(Safety.UNSAFE if unsafe else Safety.SAFE, device, probe, optimizer)
    with held_to(chosen.limits), turn(parsed, chosen):
        return run.fix(parsed, rules, chosen, fixing)


def _check_optimizer(optimizer: Any, target: Target) -> None:
    if target.kind is not Kind.LIVE:
        raise TargetError(target.text, "is loaded for the fix, so that no optimizer holds its parameters: pass none")
    from kbitlint.model.edits.optimizers import unwrapped

    unwrapped(optimizer)


@with_keywords
def plan(target: Any, *, unsafe: bool = False, **options: Unpack[Keywords]) -> tuple[Edit, ...]:
    """Return the edits that ``fix`` would make, as data; the model is left as it was."""
    options["plan"] = True
    planned = check(target, **options).planned
    if planned is None:
        return ()
    if not unsafe:
        return planned.safe
    return (*(edit for edit in planned.safe if edit not in planned.spared), *planned.unsafe)


@with_keywords
def memory(  # noqa: PLR0913  # each is one setting of a training step
    target: Any,
    *,
    lora: str | None = DEFAULT_LORA,
    optimizer: str | None = None,
    every: int = 2,
    batch: int | None = None,
    seq_len: int | None = None,
    loss: str | None = None,
    accumulation: int | None = None,
    attention: str | None = None,
    gpus: int | None = None,
    strategy: str | None = None,
    offload: bool = False,
    told: Callable[[str], None] | None = None,
    **options: Unpack[Keywords],
) -> MemoryReport:
    """Return the memory of one training step in bytes: as the model is, after PEFT's prepare, after kbitlint's fix.

    The step runs without weights. The model is only read.

    Args:
        target: As for ``check``.
        lora: LoRA where there are no adapters: ``r=16,targets=all-linear``, ``r=8,dropout=0.05,dora``. None attaches none.
        optimizer: A name of ``TrainingArguments.optim``; None for that of the context, or ``adamw``.
        every: Also measure with every n-th layer checkpointed.
        batch: Sequences in a batch; None for the value of the context, or 1.
        seq_len: Tokens in a sequence; None for the value of the context, or 2048.
        loss: ``full`` as transformers' Trainer, ``fused`` as TRL's SFTTrainer, ``kept`` if the loop keeps the outputs; None
            for that of a live Trainer, or ``full``.
        accumulation: Batches before each step of the optimizer; None for that of a live Trainer, or 1.
        attention: ``eager`` or ``sdpa``; None for that of the model.
        gpus: The cards of the run; None for the ranks of a live Trainer, or 1. The figures are those of one rank.
        strategy: A name of ``context.launch``; None for that of the context, or ``ddp`` for several cards.
        offload: Whether sharded weights lie in host memory.
        told: Receives the first peak in words, before the rest of the table is measured.
        **options: As for ``check``. With ``inputs`` the step runs on that batch, and ``step`` computes its loss.

    Raises:
        KbitlintError: As for ``check``; or an argument is wrong.
    """
    chosen = options_of(options)
    from kbitlint.fixes.budget import memory_of, plan_of  # an audit measures no step
    from kbitlint.fixes.lora import parse_lora  # as above
    from kbitlint.fixes.measured_target import (  # an audit measures no step
        context_of_target,
        launch_of,
        refuse_second_batch,
        refuse_wrong_types,
    )

    refuse_wrong_types(batch=batch, seq_len=seq_len, gpus=gpus, accumulation=accumulation, every=every)
    refuse_wrong_types(lora=lora, optimizer=optimizer, strategy=strategy, loss=loss, attention=attention)
    refuse_second_batch(chosen, batch=batch, seq_len=seq_len)
    settings = (optimizer, loss, accumulation, every, attention)
    plan_of(chosen.context, *settings)  # wrong settings raise before the target is opened
    launch_of(strategy, gpus, chosen.context, offload=offload)  # as above
    adapter = None if lora is None else parse_lora(lora)
    parsed = target_of(target)
    with turn(parsed, chosen):
        opened = open_target(parsed, chosen)
        context = context_of_target(opened, chosen, spread=gpus is not None or strategy is not None)
        step, launch = plan_of(context, *settings), launch_of(strategy, gpus, context, offload=offload)
        return memory_of(opened, chosen, (batch, seq_len), lora=adapter, plan=step, launch=launch, told=told)


@with_keywords
def fit(  # noqa: D417, PLR0913  # each is one setting of a run; some are those of memory
    target: Any,
    *,
    gpu: str,
    gpus: int | None = None,
    strategy: str | None = None,
    offload: bool = False,
    checkpointing: str | None = None,
    lora: str | None = DEFAULT_LORA,
    optimizer: str | None = None,
    batch: int | None = None,
    seq_len: int | None = None,
    loss: str | None = None,
    accumulation: int | None = None,
    attention: str | None = None,
    writable: frozenset[tuple[Owner, str]] | None = None,
    **options: Unpack[Keywords],
) -> FitReport:
    """Return whether a run fits its cards, the largest batch that does, or the cheapest changes that make it fit.

    Args:
        target: As for ``check``.
        gpu: A card (``4090``, ``A100-40``) or its size (``24GB``).
        checkpointing: ``none`` or ``all``; None for the setting of the context, or ``none``.
        batch: Sequences in a batch of one card; None for the value of the context, or 1.
        writable: (owner, name) of each setting, if only changes that they make are chosen where these suffice.
        **options: As for ``check``. The other arguments are those of ``memory``.

    Raises:
        KbitlintError: As for ``check``; or an argument is wrong.
    """
    from kbitlint.fixes.budget import plan_of  # an audit measures no step
    from kbitlint.fixes.fit import asked_of, fit_target  # as above
    from kbitlint.fixes.measured_target import context_of_target, refuse_second_batch, refuse_wrong_types  # as above

    refuse_wrong_types(gpu=gpu, batch=batch, seq_len=seq_len, gpus=gpus, accumulation=accumulation, checkpointing=checkpointing)
    refuse_wrong_types(lora=lora, optimizer=optimizer, strategy=strategy, loss=loss, attention=attention)
    chosen = options_of(options)
    refuse_second_batch(chosen, batch=batch, seq_len=seq_len)
    settings = (optimizer, loss, accumulation, None, attention)

    def ask(context: TrainingContext) -> Asked:
        return asked_of(gpu, (strategy, gpus, offload), checkpointing, context, plan_of(context, *settings), lora)

    ask(chosen.context)  # wrong settings raise before the target is opened
    parsed = target_of(target)
    with turn(parsed, chosen):
        opened = open_target(parsed, chosen)
        context = context_of_target(opened, chosen, spread=gpus is not None or strategy is not None)
        asked = dataclasses.replace(ask(context), writable=writable)
        return fit_target(opened, chosen, (batch, seq_len), asked)


def undo(model: Any) -> int:
    """Undo, bit for bit, every fix that was applied to this model object, and return how many fixes there were."""
    from kbitlint.model.edits import journal

    with turn(held(model)):
        return journal.undo(model_of(model))


def ready(target: Any, *, fail_on: str | Severity = Severity.ERROR, **options: Unpack[Keywords]) -> Report:
    """Return the report of a target; raise as ``assert_ready`` does."""
    names = [severity.value for severity in Severity]
    if isinstance(fail_on, str) and fail_on not in names:
        raise KbitlintError(f"fail_on: {fail_on!r} is none of {', '.join(names)}{did_you_mean(fail_on, names)}")
    report = check(target, **options)
    if report.exit_code(Severity(fail_on) if isinstance(fail_on, str) else fail_on):
        raise AssertionError("\n" + render(report, color=False, width=80))
    return report


@with_keywords
def assert_ready(target: Any, *, fail_on: str | Severity = Severity.ERROR, **options: Unpack[Keywords]) -> None:
    """Raise AssertionError with the text report unless training works and learns: an assertion for tests of a project.

    Errors fail: training would raise, or train nothing or the wrong parameters. The ordinary recipe passes, with PEFT's
    prepare too: what it costs in memory, time or stability is a warning. ``fail_on="warning"`` lets those fail as well.

    Raises:
        AssertionError: A violation has at least the severity ``fail_on``, or the audit is incomplete.
        KbitlintError: As for ``check``; or ``fail_on`` is no severity.
    """
    ready(target, fail_on=fail_on, **options)
