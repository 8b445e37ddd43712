"""Functions of a script that a library calls, and whose parameters refuse that call."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kbitlint.facts.own_modules import RefusedCall
from kbitlint.source.nodes import full_name, walk
from kbitlint.upstream.called_back import CALLBACK_METHODS, TRAINER_ARGUMENTS, TRAINER_METHODS, TRL_ARGUMENTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from kbitlint.upstream.called_back import LibraryCall

    _Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


def refused_calls(module: ast.Module, imports: Sequence[tuple[str, str]]) -> Iterator[RefusedCall]:
    """Yield each function that refuses the call of its library.

    Args:
        module: The syntax tree of the script.
        imports: Its imports: (full name, local name).
    """
    full = {local: name for name, local in imports}
    yield from _overrides(module, full)
    yield from _given(module, full)


def _overrides(module: ast.Module, full: Mapping[str, str]) -> Iterator[RefusedCall]:
    """Yield each method of a subclass of a Trainer or a callback that refuses the call."""
    owners: dict[str, str] = {}
    for cls in (one for one in module.body if isinstance(one, ast.ClassDef)):
        found = [owner for base in cls.bases if (owner := owners.get(ast.unparse(base)) or _owner(ast.unparse(base), full))]
        if not found:
            continue
        owners[cls.name] = found[0]
        rows = CALLBACK_METHODS if found[0] == "TrainerCallback" else TRAINER_METHODS
        methods = {item.name: item for item in cls.body if isinstance(item, ast.FunctionDef) and not item.decorator_list}
        for row in rows:
            if row.name in methods and (refused := _refused(methods[row.name], row, bound=True)):
                method = methods[row.name]
                yield RefusedCall(
                    f"{cls.name}.{row.name}", found[0], "transformers", method.lineno, row.since, row.moment, refused
                )


def _owner(base: str, full: Mapping[str, str]) -> str | None:
    """Return ``Trainer`` or ``TrainerCallback`` for such a class of transformers or TRL; None for others."""
    name = full_name(base, full)
    library, _, last = name.partition(".")[0], None, name.rpartition(".")[2]
    if library not in ("transformers", "trl"):
        return None
    if last == "TrainerCallback":
        return last
    return "Trainer" if last.endswith("Trainer") else None


def _given(module: ast.Module, full: Mapping[str, str]) -> Iterator[RefusedCall]:
    """Yield each function that a Trainer is given, and that refuses the call."""
    functions, calls = _functions_and_calls(module)
    own = {cls.name for cls in module.body if isinstance(cls, ast.ClassDef) and cls.name.endswith("Trainer")}
    for call in calls:
        called = ast.unparse(call.func)
        if called not in own and _owner(called, full) != "Trainer":
            continue
        given = {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
        for library, row in _ARGUMENTS:
            for value in _each(given.get(row.name)):
                function = _function(value, functions)
                refused = _refused(function, row, bound=False) if function else None
                if function and refused:
                    name = getattr(function, "name", "lambda")
                    yield RefusedCall(name, row.name, library, function.lineno, row.since, row.moment, refused)


def _functions_and_calls(module: ast.Module) -> tuple[Mapping[str, list[_Function]], list[ast.Call]]:
    """Return the functions that a name may stand for, unknown ones included, and the calls with keywords."""
    functions: dict[str, list[_Function]] = {}
    calls: list[ast.Call] = []
    for node in walk(module):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            functions.setdefault(node.name, []).append(node)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            functions.setdefault(node.id, []).extend([_UNKNOWN, _UNKNOWN])
        elif isinstance(node, ast.Call) and node.keywords:
            calls.append(node)
    return functions, calls


_ARGUMENTS = (*(("transformers", row) for row in TRAINER_ARGUMENTS), *(("trl", row) for row in TRL_ARGUMENTS))
_UNKNOWN = ast.Lambda(ast.arguments([], [], None, [], [], None, []), ast.Constant(None), lineno=0, col_offset=0)


def _each(value: ast.expr | None) -> list[ast.expr]:
    """Return the expressions of a list, or the one that is given."""
    if isinstance(value, (ast.List, ast.Tuple)):
        return value.elts
    return [] if value is None else [value]


def _function(value: ast.expr, functions: Mapping[str, list[_Function]]) -> _Function | None:
    """Return the function that an expression certainly is; None where the file binds the name more than once."""
    if isinstance(value, ast.Lambda):
        return value
    found = functions.get(value.id, []) if isinstance(value, ast.Name) else []
    one = found[0] if len(found) == 1 else None
    return None if one is None or getattr(one, "decorator_list", None) else one


def _refused(function: _Function, row: LibraryCall, *, bound: bool) -> str | None:
    """Return why the parameters of a function refuse the call of its library, in Python's words; None if they take it."""
    given = function.args
    places = [one.arg for one in (*given.posonlyargs, *given.args)][int(bound) :]
    keyable = [one.arg for one in given.args][max(0, int(bound) - len(given.posonlyargs)) :]
    named = set(keyable) | {one.arg for one in given.kwonlyargs}
    if len(places) < row.positional and given.vararg is None:
        return f"takes {len(places)} positional arguments but {row.positional} are given"
    if given.kwarg is None:
        missing = next((one for one in row.keywords if one not in named), None)
        if missing is not None:
            return f"got an unexpected keyword argument '{missing}'"
        if row.more:
            return "takes no **kwargs, and further keyword arguments are given"
    needed = places[row.positional : len(places) - len(given.defaults)]
    needed += [one.arg for one, default in zip(given.kwonlyargs, given.kw_defaults, strict=True) if default is None]
    if row.more:
        return None  # a dataset's column may have the name
    lacking = next((one for one in needed if one not in row.keywords), None)
    return lacking and f"missing a required argument: '{lacking}'"
