"""The options of an audit or a fix: which rules run, how a target is opened, and what a report holds."""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbitlint.context import TrainingContext
from kbitlint.errors import KbitlintError, did_you_mean
from kbitlint.lazy_dataclass import dataclass
from kbitlint.limits import Limits
from kbitlint.target import FACTORIES
from kbitlint.upstream.quantization import QUANTIZATIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kbitlint.target import Target


def options_of(options: Mapping[str, Any]) -> Options:
    """Return keyword arguments as Options; None means the default.

    Raises:
        TypeError: There is no such argument.
        KbitlintError: The value of an argument is wrong.
    """
    names = {field.name for field in dataclasses.fields(Options)}
    unknown = sorted(set(options) - names)
    if unknown:
        raise TypeError(f"unknown argument {unknown[0]!r}; known are {', '.join(sorted(names))}")
    values = {name: value for name, value in options.items() if value is not None}
    for name in ("select", "ignore"):
        value = values.get(name, ())
        values[name] = (value,) if isinstance(value, str) else tuple(value)
    if isinstance(values.get("norms"), str):
        values["norms"] = _norms(values["norms"])
    for name in ("output", "cache"):
        if name in values:
            values[name] = Path(values[name])
    return Options(**values)


def _norms(name: str) -> Norms:
    known = [norms.value for norms in Norms]
    if name not in known:
        raise KbitlintError(f"norms: {name!r} is none of {', '.join(known)}{did_you_mean(name, known)}")
    return Norms(name)


def is_left_out(target: Target, options: Options) -> bool:
    """Return whether the target is a function and the options do not let functions run."""
    return not options.run and target.kind in FACTORIES


class Norms(enum.Enum):
    """The treatment of norms by a fix."""

    TRANSPARENT = "transparent"
    """float32 inside the norm; it returns the dtype that it receives, so activations stay in half precision."""
    PEFT = "peft"
    """As ``prepare_model_for_kbit_training``: every half-precision parameter, and so the residual stream, in float32."""
    KEEP = "keep"
    """Norms stay as they were loaded."""


#: the adapters for which the memory of a step is measured if none are named
DEFAULT_LORA = "r=16,targets=all-linear"


@dataclass(frozen=True, slots=True)
class Options:
    """The options of ``check`` and ``fix``."""

    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    rule_options: Mapping[str, Mapping[str, bool | float | str]] = field(default_factory=dict)
    """Code or slug of a rule -> option -> value."""
    quantize: str | None = None
    meta: bool = False
    run: bool = True
    """Whether functions are run; if not, a report lists them as skipped."""
    trust_remote_code: bool = False
    trace: bool = True
    """Whether a training step without weights may be run."""
    plan: bool = False
    """Whether to plan the fixes."""
    outline: bool = False
    """Whether to collect the tree of modules."""
    memory: bool = False
    """Whether to measure the memory of a training step before and after the fix."""
    context: TrainingContext = field(default_factory=TrainingContext)
    limits: Limits = field(default_factory=Limits)
    """The bounds on the size of scripts, notebooks and configurations."""
    norms: Norms = Norms.TRANSPARENT
    """The treatment of norms by a fix."""
    output: Path | None = None
    """The file for the edits of a checkpoint; None for kbitlint.json beside its config.json."""
    cache: Path | None = None
    """The folder in which the results of a folder's files are kept; None keeps none."""
    optimizer: Any = None
    """An optimizer whose parameters are compared with those that the model trains."""
    inputs: Any = None
    """A batch for the traced step and the probe: a dictionary of arguments, a tuple of them, or the only argument."""
    step: Any = None
    """A function of a model and ``inputs`` that returns the loss. None calls the model."""
    probe_batch: int = 2
    """Sequences in the batch of the step that proves a fix."""
    probe_seq: int = 16
    """Tokens in each of them."""

    def __post_init__(self) -> None:
        if self.quantize is not None and self.quantize not in QUANTIZATIONS:
            raise KbitlintError(f"quantize: {self.quantize!r} is none of {', '.join(QUANTIZATIONS)}")
        for name, least in (("probe_batch", 1), ("probe_seq", 2)):
            if getattr(self, name) < least:
                raise KbitlintError(f"{name}: {getattr(self, name)} is less than {least}")
        if self.step is not None and not callable(self.step):
            raise KbitlintError(f"step: a {type(self.step).__name__} is no function of a model and its inputs")
