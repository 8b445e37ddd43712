"""The search for a batch that runs: a few corrections, each tried by a run of the forward."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from kbitlint.model.batch import training_batch
from kbitlint.model.inputs.corrections import corrections
from kbitlint.model.inputs.dimensions import Dimensions
from kbitlint.model.inputs.entries import taken_apart
from kbitlint.model.inputs.failed_batch import Batch
from kbitlint.model.inputs.failure import failure_of
from kbitlint.model.inputs.interface import interface_of, takes_any
from kbitlint.model.inputs.plan import DOCUMENTED, Plan
from kbitlint.model.inputs.positions import limited
from kbitlint.model.inputs.structure import config_of, described

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from kbitlint.model.inputs.failure import Failure

Shape = tuple[int, ...]

#: Forwards that one search runs at most, and corrections of one plan.
_TRIES, _DEPTH = 32, 5


def fitted_plan(
    model: nn.Module,
    run: Callable[[dict[str, Any]], BaseException | None],
    batch: int,
    seq_len: int,
    compared: Callable[[], frozenset[int]] = frozenset,
) -> Plan | None:
    """Return a plan whose batch runs, or None if no correction leads to one.

    Args:
        model: The model.
        run: Runs the forward on a batch, and returns what it raised, or None if it ran.
        batch: Samples in the batch.
        seq_len: Tokens in each sample.
        compared: Returns the numbers with which the last run compared integers.
    """
    search = _Search(model, run, batch, seq_len, compared)
    shapes, failure = search.attempt(DOCUMENTED)
    return DOCUMENTED if failure is None else search.below(DOCUMENTED, shapes, failure, _DEPTH)


class _Search:
    """A search in the depth. It goes on from a plan that fails in another way than the one before it."""

    def __init__(
        self,
        model: nn.Module,
        run: Callable[[dict[str, Any]], BaseException | None],
        batch: int,
        seq_len: int,
        compared: Callable[[], frozenset[int]],
    ) -> None:
        self.model = model
        self.run = run
        self.batch = batch
        self.seq_len = seq_len
        self.compared = compared
        self.base = described(model)
        self.tried = {repr(DOCUMENTED)}
        self.failures: set[str] = set()

    def below(self, plan: Plan, shapes: dict[str, Shape], failure: Failure, depth: int) -> Plan | None:
        """Return a plan that corrects a failed one and runs, or None if none is found."""
        self.failures.add(_template(failure))
        seen = Batch(
            interface_of(self.base, plan.given),
            shapes,
            _dimensions(self.model, plan, self.batch, self.seq_len),
            takes_any=takes_any(self.base),
            compared=self.compared(),
        )
        for candidate in corrections(failure, plan, seen):
            if repr(candidate) in self.tried:
                continue
            if len(self.tried) > _TRIES:
                return None
            found, further = self.attempt(candidate)
            if further is None:
                return candidate
            if depth and _template(further) not in self.failures:
                deeper = self.below(candidate, found, further, depth - 1)
                if deeper is not None:
                    return deeper
        return None

    def attempt(self, plan: Plan) -> tuple[dict[str, Shape], Failure | None]:
        """Return the shapes of a plan's batch, and how its forward failed, or None if it ran."""
        self.tried.add(repr(plan))
        arguments = interface_of(self.base, plan.given)
        try:
            made = training_batch(self.model, "cpu", self.batch, self.seq_len, plan)
        except Exception as error:  # noqa: BLE001  # a plan without a batch is a plan that fails
            return {}, failure_of(error, arguments)
        raised = self.run(made)
        shapes = {name: tuple(getattr(value, "shape", ())) for name, value in taken_apart(made) if name in arguments}
        return shapes, None if raised is None else failure_of(raised, arguments)


def _template(failure: Failure) -> str:
    """Return the message of a failure without its numbers."""
    return re.sub(r"\d+", "#", f"{failure.kind} {failure.message} {failure.absent[:1]}")


def _dimensions(model: nn.Module, plan: Plan, batch: int, seq_len: int) -> Dimensions:
    base = described(model)
    config: Any = config_of(base)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    return Dimensions(config, batch, limited(base, text, plan.seq_len or seq_len), plan.dimensions)
