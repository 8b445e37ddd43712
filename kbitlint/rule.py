"""The base class of rules and its helpers. A rule imports these and the result types of ``kbitlint.violation``."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any, ClassVar

from kbitlint.lazy_dataclass import dataclass
from kbitlint.runtime.docstrings import docstring
from kbitlint.violation import Consequence, Fix, Location, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from kbitlint.context import TrainingContext
    from kbitlint.facts.checkpoint import CheckpointFacts
    from kbitlint.facts.model import ModelFacts
    from kbitlint.facts.ranks import RanksFacts
    from kbitlint.facts.rehearsal import RehearsalFacts
    from kbitlint.facts.source import SourceFacts
    from kbitlint.facts.trace import TraceFacts

__all__ = ["Meta", "Option", "Rule", "Unchecked", "Unstated"]


@dataclass(frozen=True, slots=True)
class Meta:
    """The identity of a rule. Severity and consequence are defaults that a single violation may override."""

    code: str
    slug: str
    severity: Severity
    consequence: Consequence
    since: str


@dataclass(frozen=True, slots=True)
class Option:
    """A setting of a rule that a project can change under ``[tool.kbitlint.options]``."""

    name: str
    """Lower-case words joined by hyphens."""
    default: bool | float | str
    doc: str
    """One sentence without a full stop."""


class Unchecked(Exception):  # noqa: N818  # not an error: a check raises it to report that it cannot decide
    """Raised by a check that cannot decide. The engine records a Skip with this reason."""


class Unstated(Unchecked):
    """Raised when the verdict applies to one kind of run only and the context leaves the kind open.

    An example is a run on several ranks. Text reports list such a skip only with ``--verbose``; JSON always does.
    """


#: surface -> the method of a rule that checks it
_METHODS = {
    Surface.FILES: "check_files",
    Surface.SOURCE: "check_source",
    Surface.MODEL: "check_model",
    Surface.TRACE: "check_trace",
    Surface.RANKS: "check_ranks",
    Surface.REHEARSAL: "check_rehearsal",
}


@functools.lru_cache(maxsize=1024)
def _served(cls: type[Rule]) -> tuple[tuple[Surface, str], ...]:
    """Return the surfaces that a rule serves, each with the name of its method. An audit asks each rule several times."""
    return tuple((surface, name) for surface, name in _METHODS.items() if getattr(cls, name) is not getattr(Rule, name))


class Rule:
    """One root cause. The docstring is the rule's document; each method ``check_<surface>`` finds it on one surface.

    A check only reads its facts. It may yield violations in any order and must be deterministic. A rule serves
    exactly the surfaces whose methods it overrides.
    """

    meta: ClassVar[Meta]
    options: ClassVar[tuple[Option, ...]] = ()
    needs_strategy: ClassVar[bool] = False
    """Whether the verdict on a model depends on how the ranks share it.

    If True, the engine skips ``check_model`` and ``check_trace`` when the context has no strategy.
    """

    def __init__(self, given: Mapping[str, bool | float | str] | None = None) -> None:
        self._given = dict(given or {})

    def given(self) -> tuple[tuple[str, bool | float | str], ...]:
        """Return the options that the project set, sorted by name."""
        return tuple(sorted(self._given.items()))

    def option(self, name: str) -> Any:
        """Return the value that the project set for an option of this rule, or its default.

        Raises:
            StopIteration: If the rule does not declare the option.
        """
        return self._given.get(name, next(option.default for option in self.options if option.name == name))

    def check_files(self, checkpoint: CheckpointFacts, context: TrainingContext) -> Iterable[Violation]:
        """Yield the violations in the files of a checkpoint."""
        raise NotImplementedError

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterable[Violation]:
        """Yield the violations in a training script, a notebook or a training configuration."""
        raise NotImplementedError

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterable[Violation]:
        """Yield the violations of a model object, either live or on the meta device."""
        raise NotImplementedError

    def check_trace(self, trace: TraceFacts, context: TrainingContext) -> Iterable[Violation]:
        """Yield the violations in a training step without weights.

        If a rule ran on both the model and the trace, the engine keeps the violations of the trace only.
        """
        raise NotImplementedError

    def check_ranks(self, ranks: RanksFacts, context: TrainingContext) -> Iterable[Violation]:
        """Yield the violations of a running training: differences between the ranks' models, and the optimizer."""
        raise NotImplementedError

    def check_rehearsal(self, rehearsal: RehearsalFacts, context: TrainingContext) -> Iterable[Violation]:
        """Yield the violations in a rehearsal: what the user's script raised, and the batches that reached its training."""
        raise NotImplementedError

    @classmethod
    def checks(cls) -> dict[Surface, Callable[..., Any]]:
        """Return the surfaces that this rule serves, each with its method."""
        return {surface: getattr(cls, name) for surface, name in _served(cls)}  # type: ignore[arg-type]  # a class can be hashed

    @classmethod
    def title(cls) -> str:
        """Return the first line of the rule's document."""
        return (cls.__doc__ or docstring(cls)).strip().partition("\n")[0]

    def violation(
        self,
        message: str,
        at: Location,
        *,
        surface: Surface = Surface.MODEL,
        severity: Severity | None = None,
        consequence: Consequence | None = None,
        evidence: Mapping[str, Any] | None = None,
        fix: Fix | None = None,
    ) -> Violation:
        """Return a violation of this rule; severity and consequence default to those of ``meta``."""
        return Violation(
            code=self.meta.code,
            slug=self.meta.slug,
            severity=severity or self.meta.severity,
            consequence=consequence or self.meta.consequence,
            message=message,
            at=at,
            surface=surface,
            evidence=dict(evidence or {}),
            fix=fix,
        )


#: of a rule: ``KB`` for those of kbitlint, any capital letters for those of packs
CODE = re.compile(r"[A-Z]{2,8}\d{3}")
SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
