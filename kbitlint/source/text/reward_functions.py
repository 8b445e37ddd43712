"""Reward functions that a trainer of TRL is given, read from the text: what they take, and what they return."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, NamedTuple

from kbitlint.facts.data_flow import DataUse
from kbitlint.source.text.appended import appended
from kbitlint.source.text.bindings import is_open, keyword, returned, stored
from kbitlint.source.text.row_sets import columns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.source.text.bindings import Bindings, Def

#: what the trainer passes beside the columns of the data (``trl/trainer/grpo_trainer.py``, ``_calculate_rewards``)
_PASSED = frozenset(
    ("prompts", "completions", "completion_ids", "completions_ids", "trainer_state", "log_extra", "log_metric", "environments")
)
#: columns that it does not pass
_KEPT_BACK = frozenset(("prompt", "completion"))
#: what has one item for each completion, beside the columns
_EACH = frozenset(("prompts", "completions", "completion_ids"))
_NO_NUMBERS = (ast.Dict, ast.Tuple, ast.List, ast.JoinedStr, ast.Set, ast.ListComp, ast.DictComp)


class Reward(NamedTuple):
    """One reward function of a trainer."""

    function: Def
    bound: frozenset[str]
    """The parameters that ``functools.partial`` has bound."""


def reward_uses(names: Bindings, call: ast.Call) -> Iterator[DataUse]:
    """Yield the reward functions of a trainer whose call fails, or whose result it cannot use.

    Args:
        names: The bindings of the file.
        call: The call that makes the trainer.
    """
    given = keyword(call, "reward_funcs") or (call.args[1] if len(call.args) > 1 else None)
    held, _ = names.value(given)
    each = held.elts if isinstance(held, (ast.List, ast.Tuple)) else [held]
    rewards = [_reward(names, one) for one in each]
    have = columns(names, keyword(call, "train_dataset")) if keyword(call, "environment_factory") is None else None
    for one in each:
        called = names.value(one.func)[0] if isinstance(one, ast.Call) else None
        if isinstance(called, ast.FunctionDef) and any(given.arg == "completions" for given in called.args.args):
            yield DataUse("reward called", one.lineno if isinstance(one, ast.Call) else 0, called.name)
    constant: list[int] = []
    for reward in rewards:
        if reward is None:
            continue
        yield from _lacking(reward, have)
        made = _Result(names, reward.function)
        yield from made.uses()
        constant += [made.constant] if made.constant else []
    if constant and len(constant) == len(rewards):
        yield DataUse("equal rewards", constant[0])


def _reward(names: Bindings, node: ast.expr | ast.AST | None) -> Reward | None:
    """Return a reward function of the file; None if it is another object, or a decorator or ``yield`` changes its result."""
    made, _ = names.value(node)
    bound: frozenset[str] = frozenset()
    if isinstance(made, ast.Call) and names.full(made.func) == "functools.partial" and made.args and not is_open(made):
        bound = frozenset(one.arg for one in made.keywords if one.arg)
        node = made.args[0] if len(made.args) == 1 else None
    function = names.function(node)
    if function is None or getattr(function, "decorator_list", None):
        return None
    plain = not any(isinstance(one, (ast.Yield, ast.YieldFrom)) for one in ast.walk(function))
    return Reward(function, bound) if plain else None


def _lacking(reward: Reward, have: set[str] | None) -> Iterator[DataUse]:
    """Yield the parameter of a reward function that nothing is passed for: no column of the data has its name."""
    given = reward.function.args
    places = [one.arg for one in (*given.posonlyargs, *given.args)]
    needed = places[: len(places) - len(given.defaults)]
    needed += [one.arg for one, default in zip(given.kwonlyargs, given.kw_defaults, strict=True) if default is None]
    for name in needed:
        if name in _PASSED or name in reward.bound or name in ("self", "cls"):
            continue
        if name in _KEPT_BACK or (have is not None and name not in have):
            yield DataUse("column of rewards missing", reward.function.lineno, name)
            return


class _Result:
    """What a reward function returns.

    Args:
        names: The bindings of the file.
        function: The function.
    """

    def __init__(self, names: Bindings, function: Def) -> None:
        self._names, self._function = names, function
        self._each = _per_completion(function)
        self.constant = 0
        """The line of the result, if every completion certainly gets the same reward; else 0."""

    def uses(self) -> Iterator[DataUse]:
        """Yield what the trainer cannot use."""
        values = returned(self._function)
        if values and all(_is_number(one, self._function) for one in values):
            yield DataUse("one reward for a batch", values[0].lineno, _name(self._function))
            return
        alike = []
        for value in values:
            items, left_out = self._items(value)
            if left_out:
                yield DataUse("rewards left out", left_out, _name(self._function))
                return
            wrong = next((one for one in items if isinstance(one, _NO_NUMBERS) or _is_text(one)), None)
            if wrong is not None:
                yield DataUse("reward of no number", wrong.lineno, _name(self._function))
                return
            alike += [one.value if isinstance(one, ast.Constant) else None for one in items] or [None]
        if values and len(set(alike)) == 1 and isinstance(alike[0], (int, float)):
            self.constant = values[0].lineno

    def _items(self, value: ast.expr) -> tuple[list[ast.expr], int]:
        """Return the expressions of the rewards, and the line on which some completions get none or several."""
        if isinstance(value, ast.Name):
            found = appended(self._function, value.id, self._each)
            if found is not None:
                return [part for one in found.values for part in _choices(one)], found.uneven
        made, _ = self._names.value(value)
        if isinstance(made, ast.ListComp) and len(made.generators) == 1 and names_of(made.generators[0].iter) & self._each:
            return _choices(made.elt), made.lineno if made.generators[0].ifs else 0
        if isinstance(made, ast.BinOp) and isinstance(made.op, ast.Mult):
            listed = next((one for one in (made.left, made.right) if isinstance(one, ast.List)), None)
            return (_choices(listed.elts[0]), 0) if listed is not None and len(listed.elts) == 1 else ([], 0)
        return [], 0


def _per_completion(function: Def) -> set[str]:
    """Return the names that hold one item for each completion: parameters, and lists made of them item by item."""
    given = function.args
    found = {one.arg for one in (*given.posonlyargs, *given.args, *given.kwonlyargs)} | _EACH
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.ListComp) and len(node.targets) == 1:
            target, first = node.targets[0], node.value.generators[0]
            whole = len(node.value.generators) == 1 and not first.ifs
            if isinstance(target, ast.Name) and whole and names_of(first.iter) & found:
                found.add(target.id)
    return found


def names_of(node: ast.expr) -> set[str]:
    """Return the sequences that a loop goes through item by item: ``zip(a, b)``, ``enumerate(a)``, ``range(len(a))``."""
    if isinstance(node, ast.Name):
        return {node.id}
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("zip", "enumerate", "range", "len"):
        return {name for one in node.args for name in names_of(one)}
    return set()


def _choices(node: ast.expr) -> list[ast.expr]:
    return [*_choices(node.body), *_choices(node.orelse)] if isinstance(node, ast.IfExp) else [node]


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _name(function: Def) -> str:
    name = getattr(function, "name", "")
    return "the reward function" if name in ("", "__call__") else name


def _is_number(node: ast.expr, function: Def) -> bool:
    """Return whether an expression of a function certainly is one number."""
    if isinstance(node, ast.IfExp):
        return _is_number(node.body, function) and _is_number(node.orelse, function)
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub, ast.Mult, ast.Div)):
        return _is_number(node.left, function) and _is_number(node.right, function)
    return _counts(node, function) if isinstance(node, ast.Name) else _is_plain(node)


def _is_plain(node: ast.expr) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in ("float", "int", "len")
    return isinstance(node, ast.Constant) and isinstance(node.value, (int, float))


def _counts(name: ast.Name, function: Def) -> bool:
    """Return whether a name of a function holds a number, and is only added to."""
    held = [one for one in ast.walk(function) if isinstance(one, (ast.Assign, ast.AugAssign)) and _targets(one, name.id)]
    given = any(isinstance(one, ast.arg) and one.arg == name.id for one in ast.walk(function))
    return (
        not given and bool(held) and stored(function).count(name.id) == len(held) and all(_is_plain(one.value) for one in held)
    )


def _targets(node: ast.Assign | ast.AugAssign, name: str) -> bool:
    target = node.target if isinstance(node, ast.AugAssign) else node.targets[0] if len(node.targets) == 1 else None
    return isinstance(target, ast.Name) and target.id == name
