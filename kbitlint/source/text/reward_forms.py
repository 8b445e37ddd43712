"""Reward functions that take completions in another form than they have, read from the text: messages or texts."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kbitlint.facts.data_flow import DataUse
from kbitlint.source.text.bindings import elements, is_constant, items, keyword, last, returned
from kbitlint.source.text.mapped_functions import TEXT_METHODS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.source.text.bindings import Bindings, Def

_PATTERNS = frozenset(("match", "search", "fullmatch", "findall", "finditer"))
_CAUGHT = frozenset(("Exception", "BaseException", "TypeError", "AttributeError"))
#: functions of the file that call one another are followed so far
_DEPTH = 3


def misread_rewards(names: Bindings, call: ast.Call, maps: list[tuple[ast.Call, Def]]) -> Iterator[DataUse]:
    """Yield the first place of each reward function that takes completions in another form than they have.

    Args:
        names: The bindings of the file.
        call: The call that makes the trainer.
        maps: The calls of ``map`` that make its data, each with its function.
    """
    given, _ = names.value(keyword(call, "reward_funcs") or (call.args[1] if len(call.args) > 1 else None))
    prompts = [form for _, function in maps for one in returned(function) if (form := _prompt(items(one)))]
    seen = {("", 0)}  # several functions may call one that takes the wrong form
    for one in (given.elts if isinstance(given, (ast.List, ast.Tuple)) else [given]) if prompts else []:
        function = names.function(one)
        if function is not None and "isinstance" not in ast.dump(function):
            found = _misread(names, function, elements(function, "completions"), prompts[0], _DEPTH)
            if found not in seen:
                seen.add(found)
                yield DataUse(*found, getattr(function, "name", ""))


def _prompt(given: dict[str, ast.expr]) -> str:
    """Return the form of the prompts of a data set: ``messages`` or ``text``; empty if unknown."""
    prompt = given.get("prompt")
    if isinstance(prompt, ast.List) and prompt.elts and all("role" in items(one) for one in prompt.elts):
        return "messages"
    if isinstance(prompt, ast.JoinedStr) or (
        isinstance(prompt, ast.BinOp) and isinstance(prompt.op, ast.Add) and _is_text(prompt)
    ):
        return "text"
    templated = isinstance(prompt, ast.Call) and last(prompt) == "apply_chat_template" and keyword(prompt, "tokenize")
    return "text" if templated and is_constant(templated, value=False) else ""


def _is_text(node: ast.BinOp) -> bool:
    texts = (one.value for one in (node.left, node.right) if isinstance(one, ast.Constant))
    return any(isinstance(one, ast.JoinedStr) for one in (node.left, node.right)) or any(
        isinstance(one, str) and one for one in texts
    )


def _misread(names: Bindings, function: Def, ones: set[str], form: str, depth: int) -> tuple[str, int]:
    """Return the relation and the line of the first place that takes an item in another form; empty if there is none."""
    caught = _in_try(function)
    for node in ast.walk(function):
        if id(node) in caught:
            continue
        if form == "messages" and isinstance(node, ast.Call):
            if _takes_text(node, ones):
                return "messages as text", node.lineno
            helper, given = _helper(names, node, ones)
            if helper is not None and depth and not _asks(helper, given):
                found = _misread(names, helper, given, form, depth - 1)
                if found[0]:
                    return found
        if form == "text" and isinstance(node, ast.Subscript) and is_constant(node.slice, "content"):
            inner = node.value
            if isinstance(inner, ast.Subscript) and isinstance(inner.value, ast.Name) and inner.value.id in ones:
                return "text as messages", node.lineno
    return "", 0


def _takes_text(node: ast.Call, ones: set[str]) -> bool:
    """Return whether a call takes an item for text: a method of texts, a search of a pattern, the parser of JSON."""
    if not isinstance(node.func, ast.Attribute):
        return False
    owner, given = node.func.value, {one.id for one in node.args if isinstance(one, ast.Name)}
    method = node.func.attr in TEXT_METHODS and isinstance(owner, ast.Name) and owner.id in ones
    parsed = node.func.attr == "loads" and isinstance(owner, ast.Name) and owner.id == "json"
    return method or bool((node.func.attr in _PATTERNS or parsed) and ones & given)


def _helper(names: Bindings, node: ast.Call, ones: set[str]) -> tuple[Def | None, set[str]]:
    """Return the function of the file that a call gives an item, and the parameters that get it."""
    function = names.function(node.func) if isinstance(node.func, ast.Name) else None
    if not isinstance(function, ast.FunctionDef):
        return None, set()
    places = [one.arg for one in (*function.args.posonlyargs, *function.args.args)]
    pairs = [*zip(places, node.args, strict=False), *((one.arg, one.value) for one in node.keywords if one.arg)]
    given = {name for name, value in pairs if isinstance(value, ast.Name) and value.id in ones}
    return (function, given) if given else (None, given)


def _asks(function: Def, names: set[str]) -> bool:
    """Return whether a function asks for the class of a parameter, or gives it another value."""
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("isinstance", "type"):
            if any(isinstance(one, ast.Name) and one.id in names for one in node.args):
                return True
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in names:
            return True
    return False


def _in_try(function: Def) -> set[int]:
    """Return the ids of the nodes whose exceptions a function catches."""
    found: set[int] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Try) and any(_catches(one) for one in node.handlers):
            found |= {id(part) for statement in node.body for part in ast.walk(statement)}
    return found


def _catches(handler: ast.ExceptHandler) -> bool:
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(one is None or (isinstance(one, ast.Name) and one.id in _CAUGHT) for one in kinds)
