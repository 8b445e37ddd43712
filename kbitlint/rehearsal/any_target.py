"""``kbitlint.fit`` and ``kbitlint.memory``: a script is rehearsed and its training measured, any other target is opened."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, TypeVar

from kbitlint import api
from kbitlint.errors import TargetError
from kbitlint.rehearsal.command import words_of
from kbitlint.rehearsal.measured import fit_script, memory_of_script
from kbitlint.rehearsal.run import Rehearsal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from typing_extensions import Unpack

    from kbitlint.audit.keywords import FitKeywords, MemoryKeywords
    from kbitlint.step_report import FitReport, MemoryReport

Function = TypeVar("Function", bound="Callable[..., Any]")


def _beside(base: Callable[..., Any]) -> Callable[[Function], Function]:
    """Return a decorator that shows the arguments of a base function in a signature, and its documentation of them."""

    def decorate(function: Function) -> Function:
        own = inspect.signature(function).parameters
        shown = [item for item in own.values() if item.kind is not inspect.Parameter.VAR_KEYWORD]
        shown += [item for name, item in inspect.signature(base).parameters.items() if name not in own]
        function.__signature__ = inspect.signature(function).replace(parameters=shown)  # type: ignore[attr-defined]  # inspect reads it
        return function

    return decorate


@_beside(api.memory)
def memory(target: Any, *, argv: Sequence[str] = (), **options: Unpack[MemoryKeywords]) -> MemoryReport:
    """Return the memory of one training step in bytes: as the model is, after PEFT's prepare, after kbitlint's fix.

    The step runs without weights. A model is only read. A script is rehearsed, and of its trainings the one that takes most is
    measured, as it is set up there.

    Args:
        target: As for ``check``; a script or notebook; or a whole command, such as ``accelerate launch train.py --flag``.
        argv: The arguments of the script.
        **options: As for ``check``, and:
            lora: LoRA where there are no adapters: ``r=16,targets=all-linear``, ``r=8,dropout=0.05,dora``. None attaches none.
            optimizer: A name of ``TrainingArguments.optim``; None for that of the target, or ``adamw``.
            every: Also measure with every n-th layer checkpointed.
            batch: Sequences in a batch; None for that of the target, or 1.
            seq_len: Tokens in a sequence; None for that of the target, or 2048.
            loss: ``full`` as transformers' Trainer, ``fused`` as TRL's SFTTrainer, ``kept`` if the loop keeps the outputs; None
                for that of the target, or ``full``.
            accumulation: Batches before each step of the optimizer; None for that of the target, or 1.
            attention: ``eager`` or ``sdpa``; None for that of the model.
            gpus: The cards of the run; None for the ranks of the target, or 1. The figures are those of one rank.
            strategy: ``ddp``, ``fsdp2`` or another strategy; None for that of the target, or ``ddp`` for several cards.
            offload: Whether sharded weights lie in host memory.
            told: Receives the first peak of a target that is no script, in words.
            inputs: The batch of the step, in place of ``batch`` and ``seq_len``: a dictionary of arguments, a tuple of them, or
                the only argument. ``step`` is a function of a model and ``inputs`` that returns the loss.

    Raises:
        KbitlintError: As for ``check``; or an argument is wrong; or a script reaches no training.
    """
    words = words_of(target, argv)
    if words is not None:
        _refuse_batch(target, options)
    return api.memory(target, **options) if words is None else memory_of_script(words, Rehearsal(), _of_script(options))


@_beside(api.fit)
def fit(
    target: Any, *, argv: Sequence[str] = (), fix: bool = False, unsafe: bool = False, **options: Unpack[FitKeywords]
) -> FitReport:
    """Return whether a run fits its cards, the largest batch that does, or the cheapest changes that make it fit.

    Args:
        target: As for ``memory``.
        argv: The arguments of the script.
        fix: Whether to write the changes that make it fit into the script. They are written if settings of the script make all
            of them, and if the changed script, rehearsed, fits.
        unsafe: Whether a shorter length and a smaller rank may be written too.
        **options: As for ``memory`` without ``every`` and ``told``, and:
            gpu: A card (``4090``, ``A100-40``) or its size (``24GB``). It must be given.
            checkpointing: ``none`` or ``all``; None for that of the target, or ``none``.

    Raises:
        KbitlintError: As for ``memory``; or ``fix`` is asked for, and the target is no script.
    """
    words = words_of(target, argv)
    if words is not None:
        _refuse_batch(target, options)
        if "gpu" not in options:
            raise TypeError("fit() missing 1 required keyword-only argument: 'gpu'")
        return fit_script(words, Rehearsal(), _of_script(options), fix=fix, unsafe=unsafe)
    if fix:
        raise TargetError(str(target), "is no script: --fix changes the settings of scripts and notebooks")
    return api.fit(target, **options)


def _refuse_batch(target: Any, options: Any) -> None:
    given = next((name for name in ("inputs", "step") if options.get(name) is not None), None)
    if given is not None:
        raise TargetError(str(target), f"is a script, which makes its own batches: leave {given} out")


def _of_script(options: Any) -> dict[str, Any]:
    """Return the arguments of a measurement inside a script: LoRA is attached to its model only if it is asked for."""
    return {"lora": None, **options}
