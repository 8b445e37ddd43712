"""The keyword arguments of the public functions, with their types: what type checkers see and what completion shows."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

from kbitlint.audit.options import Options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from typing_extensions import Required

    from kbitlint.context import TrainingContext
    from kbitlint.fit_result import Owner
    from kbitlint.limits import Limits

Function = TypeVar("Function", bound="Callable[..., Any]")


class Keywords(TypedDict, total=False):
    """The options of an audit. ``Options`` documents each; None stands for its default."""

    select: str | Iterable[str] | None
    """Codes, prefixes or slugs of the rules to run; all if it is empty."""
    ignore: str | Iterable[str] | None
    """Codes, prefixes or slugs of rules not to run."""
    rule_options: Mapping[str, Mapping[str, bool | float | str]] | None
    quantize: str | None
    """For named targets: ``nf4``, ``fp4``, ``int8`` or ``none``."""
    meta: bool | None
    run: bool | None
    trust_remote_code: bool | None
    trace: bool | None
    plan: bool | None
    outline: bool | None
    memory: bool | None
    context: TrainingContext | None
    limits: Limits | None
    norms: str | None
    """For a fix: ``transparent``, ``keep`` or ``peft``."""
    output: str | Path | None
    cache: str | Path | None
    """For folders of scripts: where the results of files are kept for the next audit."""
    inputs: Any
    """A batch for the traced step: a dictionary of arguments, a tuple of them, or the only argument."""
    step: Callable[[Any, Any], Any] | None
    """A function of a model and ``inputs`` that returns the loss."""
    probe_batch: int | None
    probe_seq: int | None


class StepKeywords(Keywords, total=False):
    """The options of a measured step."""

    lora: str | None
    optimizer: str | None
    batch: int | None
    seq_len: int | None
    loss: str | None
    accumulation: int | None
    attention: str | None
    gpus: int | None
    strategy: str | None
    offload: bool


class MemoryKeywords(StepKeywords, total=False):
    """The options of ``kbitlint.memory``, which documents each."""

    every: int
    told: Callable[[str], None] | None


class FitKeywords(StepKeywords, total=False):
    """The options of ``kbitlint.fit``, which documents each."""

    gpu: Required[str]
    checkpointing: str | None
    writable: frozenset[tuple[Owner, str]] | None


def with_keywords(function: Function) -> Function:
    """Let a function with ``**options: Unpack[Keywords]`` show each of them in its signature, for notebooks and ``help``."""
    signature = inspect.signature(function)
    own = [item for item in signature.parameters.values() if item.kind is not inspect.Parameter.VAR_KEYWORD]
    known = {item.name for item in own}
    types = Keywords.__annotations__
    further = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=_shown(types[name]))
        for name, default in _defaults().items()
        if name not in known
    ]
    function.__signature__ = signature.replace(parameters=[*own, *further])  # type: ignore[attr-defined]  # inspect reads it
    return function


def _defaults() -> dict[str, Any]:
    fields = inspect.signature(Options).parameters
    plain = (bool, int, str, tuple, type(None))
    return {
        name: fields[name].default if isinstance(fields[name].default, plain) else None for name in Keywords.__annotations__
    }


def _shown(annotation: object) -> object:
    """Return an annotation as it is written in this file."""
    return getattr(annotation, "__forward_arg__", annotation)
