"""All that the author of a rule imports, besides the result types of ``kbitlint.violation``."""

from __future__ import annotations

import re
from abc import ABC
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from kbitlint.runtime.docstrings import docstring
from kbitlint.violation import Consequence, Fix, Location, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from kbitlint.context import TrainingContext
    from kbitlint.facts.checkpoint import CheckpointFacts
    from kbitlint.facts.model import ModelFacts
    from kbitlint.facts.ranks import RanksFacts
    from kbitlint.facts.source import SourceFacts
    from kbitlint.facts.trace import TraceFacts

__all__ = ["Meta", "Option", "Rule", "Unchecked", "Unstated"]


@dataclass(frozen=True, slots=True)
class Meta:
    """What a rule is called and how much it matters where its evidence does not say otherwise."""

    code: str
    slug: str
    severity: Severity
    consequence: Consequence
    since: str


@dataclass(frozen=True, slots=True)
class Option:
    """A number or a word that a project may set for a rule, under ``[tool.kbitlint.options]``."""

    name: str
    """Words joined by hyphens."""
    default: bool | float | str
    doc: str
    """One sentence, without a full stop."""


class Unchecked(Exception):  # noqa: N818  # not an error: a check raises it to say why it cannot decide
    """Raised by a check that cannot decide; becomes a Skip with this reason."""


class Unstated(Unchecked):
    """Raised where the rule is about runs of a kind that nothing says this is, so that few readers miss its verdict."""


class Rule(ABC):
    """One root cause. The docstring is its documentation; each surface it can be seen on is one method.

    A check only reads its facts, yields violations in any order, and is deterministic. Which surfaces a rule
    serves follows from the methods it overrides.
    """

    meta: ClassVar[Meta]
    options: ClassVar[tuple[Option, ...]] = ()
    needs_strategy: ClassVar[bool] = False
    """Whether the verdict on a model depends on how ranks share it. If so, ``check_model`` and ``check_trace`` are skipped
    when the context has no strategy."""

    def __init__(self, given: Mapping[str, bool | float | str] | None = None) -> None:
        self._given = dict(given or {})

    def option(self, name: str) -> Any:
        """What the project set for an option of this rule, or its default."""
        return self._given.get(name, next(option.default for option in self.options if option.name == name))

    def check_files(self, checkpoint: CheckpointFacts, context: TrainingContext) -> Iterable[Violation]:
        """Violations seen in the files of a checkpoint."""
        raise NotImplementedError

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterable[Violation]:
        """Violations seen in a training script, a notebook or a training configuration."""
        raise NotImplementedError

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterable[Violation]:
        """Violations seen on a model object, live or on the meta device."""
        raise NotImplementedError

    def check_trace(self, trace: TraceFacts, context: TrainingContext) -> Iterable[Violation]:
        """Violations seen in a training step without weights; where a rule has both, this one decides."""
        raise NotImplementedError

    def check_ranks(self, ranks: RanksFacts, context: TrainingContext) -> Iterable[Violation]:
        """Violations seen where training runs: the ranks' models side by side, and the optimizer."""
        raise NotImplementedError

    @classmethod
    def checks(cls) -> dict[Surface, Callable[..., Any]]:
        """The surfaces this rule serves, with the method that serves each."""
        methods = {
            Surface.FILES: "check_files",
            Surface.SOURCE: "check_source",
            Surface.MODEL: "check_model",
            Surface.TRACE: "check_trace",
            Surface.RANKS: "check_ranks",
        }
        return {
            surface: getattr(cls, name) for surface, name in methods.items() if getattr(cls, name) is not getattr(Rule, name)
        }

    @classmethod
    def title(cls) -> str:
        """The first line of the rule's document."""
        return docstring(cls).partition("\n")[0]

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
        """A violation of this rule, with the severity and consequence of its meta unless given."""
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


CODE = re.compile(r"KB[1-9]\d\d")
SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
