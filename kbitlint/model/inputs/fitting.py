"""The search for a batch that runs: a few corrections, each tried by a run of the forward."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from torch import nn

from kbitlint.model.batch import training_batch
from kbitlint.model.inputs.corrections import corrections
from kbitlint.model.inputs.dimensions import Dimensions
from kbitlint.model.inputs.entries import taken_apart
from kbitlint.model.inputs.failed_batch import Batch
from kbitlint.model.inputs.failure import failure_of
from kbitlint.model.inputs.input_nodes import Session
from kbitlint.model.inputs.interface import Argument, interface_of, several_of, takes_any
from kbitlint.model.inputs.lazy_input import LazyInput
from kbitlint.model.inputs.media import float_dtype
from kbitlint.model.inputs.plan import DOCUMENTED, Plan
from kbitlint.model.inputs.positions import limited
from kbitlint.model.inputs.recipes import leaves_of
from kbitlint.model.inputs.structure import config_of, described

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kbitlint.model.inputs.failure import Failure
    from kbitlint.model.inputs.recipes import Recipe

Shape = tuple[int, ...]

#: Forwards that one search runs at most, and corrections of one plan.
_TRIES, _DEPTH = 32, 5
#: Runs of one plan whose promised sizes are broken.
_AGAIN = 3
#: Runs that find one entry more of an input that code copies.
_ENTRIES = 8
#: What a function says of arguments that ``**batch`` did not hold.
_LACKING = re.compile(r"missing \d+ required (?:positional|keyword-only) arguments?: (.+)")


def fitted_plan(
    model: nn.Module,
    run: Callable[[dict[str, Any]], BaseException | None],
    batch: int,
    seq_len: int,
    seen: tuple[Callable[[], frozenset[int]], Callable[[], int]] = (frozenset, int),
) -> Plan | None:
    """Return a plan whose batch runs, or None if no correction leads to one.

    Args:
        model: The model.
        run: Runs the forward on a batch, and returns what it raised, or None if it ran.
        batch: Samples in the batch.
        seq_len: Tokens in each sample.
        seen: Returns the numbers with which the last run compared integers, and how many functions of torch ran in it.
    """
    search = _Search(model, run, batch, seq_len, seen)
    if has_training_step(search.base) and (found := _used_plan(search, Plan(method="training_step"))) is not None:
        return found
    shapes, failure = search.attempt(DOCUMENTED)
    if failure is None:
        return DOCUMENTED
    found = None if is_of_library(search.base) else _used_plan(search)
    return found or search.below(DOCUMENTED, shapes, failure, _DEPTH)


def has_training_step(base: nn.Module) -> bool:
    """Return whether a module computes its loss in a method of its own, as Lightning's modules do."""
    return callable(getattr(type(base), "training_step", None))


def _used_plan(documented: _Search, start: Plan = DOCUMENTED) -> Plan | None:
    """Return a plan whose inputs have the form that the forward's own code gives them, or None if that leads to no batch."""
    search = _UseSearch(documented.model, documented.run, documented.batch, documented.seq_len, documented.seen)
    shapes, failure = search.attempt(start)
    plan = start if failure is None else search.below(start, shapes, failure, _DEPTH)
    if plan is None:
        return None
    found = plan.changed(recipes=search.recipes)
    shapes, failure = documented.attempt(found)
    return found if failure is None else None


def is_of_library(base: nn.Module) -> bool:
    """Return whether a class documents its inputs in the way of transformers or diffusers."""
    return type(base).__module__.partition(".")[0] in ("transformers", "diffusers")


class _Search:
    """A search in the depth. It goes on from a plan that fails in another way than the one before it."""

    progress = 0
    """How many functions of torch ran in the last forward. A correction after which fewer run leads nowhere."""
    documented = True
    """Whether inputs have the form that the class documents."""

    def __init__(
        self,
        model: nn.Module,
        run: Callable[[dict[str, Any]], BaseException | None],
        batch: int,
        seq_len: int,
        seen: tuple[Callable[[], frozenset[int]], Callable[[], int]],
    ) -> None:
        self.model = model
        self.run = run
        self.batch = batch
        self.seq_len = seq_len
        self.seen = seen
        self.compared, self.calls = seen
        self.base = described(model)
        self.tried = {repr(DOCUMENTED)}
        self.failures: set[str] = set()

    def below(self, plan: Plan, shapes: dict[str, Shape], failure: Failure, depth: int) -> Plan | None:
        """Return a plan that corrects a failed one and runs, or None if none is found."""
        self.failures.add(self.template(failure))
        seen = Batch(
            self.arguments(plan),
            shapes,
            _dimensions(self.model, plan, self.batch, self.seq_len),
            takes_any=takes_any(self.base),
            compared=self.compared(),
            documented=self.documented,
        )
        for candidate in corrections(failure, plan, seen):
            if repr(candidate) in self.tried:
                continue
            if len(self.tried) > _TRIES:
                return None
            before = self.progress
            found, further = self.attempt(candidate)
            if further is None:
                return candidate
            if depth and self.template(further) not in self.failures and self.progress >= before:
                deeper = self.below(candidate, found, further, depth - 1)
                if deeper is not None:
                    return deeper
        return None

    def template(self, failure: Failure) -> str:
        """Return what tells a failure from others: its message without numbers, or with those that corrections approach."""
        return re.sub(r"\d+", "#", _template(failure)) if self.documented else _template(failure)

    def arguments(self, plan: Plan) -> dict[str, Argument]:
        """Return what the forward takes, by name."""
        return interface_of(self.base, plan.given)

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


class _UseSearch(_Search):
    """A search whose inputs have no form of their own: the code of the forward gives it to them (``lazy_input``)."""

    documented = False
    recipes: Mapping[str, Recipe] = {}  # replaced by each attempt
    """What the last run has found out about each argument."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.entries: dict[str, list[str]] = {}
        """The entries of inputs that code copies before it reads them, by path."""

    def arguments(self, plan: Plan) -> dict[str, Argument]:
        """Return what the forward takes, and each tensor inside of it, by the way to it."""
        leaves = [leaf for name, recipe in self.recipes.items() for leaf in leaves_of(name, recipe)]
        inside = {path: Argument(path, True, leaf.kind, None, "") for path, leaf in leaves}  # noqa: FBT003  # a row of a table
        return interface_of(self.base, plan.given, plan.method) | inside

    def attempt(self, plan: Plan) -> tuple[dict[str, Shape], Failure | None]:
        """Return the shapes that the forward has given its inputs, and how it failed, or None if it ran."""
        self.tried.add(repr(plan))
        known = interface_of(self.base, plan.given, plan.method)
        left = _AGAIN + _ENTRIES
        while left := left - 1:
            session, raised = self._once(plan, known)
            if self._has_new_entry(session, raised):
                continue
            left = min(left, _AGAIN)
            if not session.broken:  # code has read other sizes than those that its layers took later
                break
            plan = plan.changed(shapes=session.broken)
        self.recipes = session.recipes()
        leaves = [leaf for name, recipe in self.recipes.items() for leaf in leaves_of(name, recipe)]
        shapes = {path: leaf.shape for path, leaf in leaves}
        return shapes, None if raised is None else failure_of(raised, [*known, *shapes])

    def _has_new_entry(self, session: Session, raised: BaseException | None) -> bool:
        """Return whether a run lacked entries of an input that its code copied, and record them.

        A copy, as ``dict(batch)`` and ``inner(**batch)`` make it, holds the entries that were known before.
        """
        keys: list[str] = []
        if session.copied and isinstance(raised, KeyError) and raised.args and isinstance(raised.args[0], str):
            keys = [raised.args[0]]
        elif session.copied and isinstance(raised, TypeError) and (lacking := _LACKING.search(str(raised))):
            keys = re.findall(r"'(\w+)'", lacking[1])
        known = self.entries.setdefault(session.copied[-1], []) if keys else []
        new = [key for key in keys if key not in known]
        known += new
        return bool(new)

    def _once(self, plan: Plan, known: Mapping[str, Argument]) -> tuple[Session, BaseException | None]:
        """Run the forward on lazy inputs, and return them and what it raised."""
        session = Session(plan, self.batch, plan.seq_len or self.seq_len, float_dtype(self.base), self.entries)
        wanted = [name for name, one in known.items() if (one.required or name in plan.given) and name not in plan.without]
        made: dict[str, Any] = {name: LazyInput(session.input(name)) for name in wanted}
        if plan.method == "forward" and (several := several_of(self.base)) is not None:
            count = plan.counts.get(f"*{several}") or _branches(self.base)
            made[f"*{several}"] = tuple(map(LazyInput, session.several(f"*{several}", count)))
        raised = self.run(made if plan.method == "forward" else {f".{plan.method}": made})
        self.progress = self.calls()
        return session, raised


def _branches(base: nn.Module) -> int:
    """Return how many inputs ``*inputs`` may hold: as many as a list of modules has branches."""
    return max((len(module) for module in base.children() if isinstance(module, nn.ModuleList)), default=2)


def _template(failure: Failure) -> str:
    """Return a failure in words."""
    return f"{failure.kind} {failure.message} {failure.absent[:1]}"


def _dimensions(model: nn.Module, plan: Plan, batch: int, seq_len: int) -> Dimensions:
    base = described(model)
    config: Any = config_of(base)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    return Dimensions(config, batch, limited(base, text, plan.seq_len or seq_len), plan.dimensions)
