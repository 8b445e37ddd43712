"""Names of a file and the expressions that they hold, read from the text without following its paths."""

from __future__ import annotations

import ast
from dataclasses import field
from typing import TYPE_CHECKING

from kbitlint.lazy_dataclass import dataclass
from kbitlint.source.nodes import children, last_name, walk

if TYPE_CHECKING:
    from collections.abc import Iterator

Def = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_BRANCHES = (ast.If, ast.Try, ast.For, ast.AsyncFor, ast.While, ast.Match, ast.IfExp, ast.BoolOp)
_LONGEST = 30


@dataclass(slots=True, eq=False)
class Names:
    """The names of a module or function."""

    outer: Names | None = None
    bound: dict[str, list[tuple[int, ast.AST, bool]]] = field(default_factory=dict)
    """(last line of the statement, value or definition, whether it is in a branch) of each binding of a name."""


class Bindings:
    """The bindings of a file.

    Args:
        module: The syntax tree.
    """

    def __init__(self, module: ast.Module) -> None:
        self._around: dict[int, Names] = {}
        self.calls: list[ast.Call] = []
        self.subscripts: list[ast.Subscript] = []
        """Each item that the file reads by a constant key."""
        self.functions: list[Def] = []
        self.imports: dict[str, str] = {}
        """Full name of each imported name."""
        self.templates: list[ast.expr] = []
        """What the file assigns to ``chat_template`` of a tokenizer."""
        self.attributes: dict[str, list[ast.expr]] = {}
        """What the file assigns to the attributes of objects, by the attribute's name."""
        self.uncertain: set[int] = set()
        """``id`` of each call in a branch."""
        self._read(module, Names(), branch=False)

    def _read(self, node: ast.AST, names: Names, *, branch: bool) -> None:
        todo = [(node, names, branch)]
        while todo:
            one, scope, inside = todo.pop()
            self._around[id(one)] = scope
            self._bind(one, scope, inside=inside)
            if isinstance(one, ast.Call):
                self.calls.append(one)
                self.uncertain |= {id(one)} if inside else set()
            if isinstance(one, ast.Subscript) and isinstance(one.ctx, ast.Load) and isinstance(one.slice, ast.Constant):
                self.subscripts.append(one)
            if isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)):
                if not isinstance(one, ast.ClassDef):
                    self.functions.append(one)
                scope, inside = Names(scope), False
                if not isinstance(one, ast.ClassDef):
                    scope.bound = {
                        given.arg: [(one.lineno, given, True)] for given in walk(one.args) if isinstance(given, ast.arg)
                    }
            todo += [(child, scope, inside or _branches(one)) for child in children(one)]

    def _bind(self, node: ast.AST, names: Names, *, inside: bool) -> None:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.bound.setdefault(node.name, []).append((node.lineno, node, inside))
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                self._assign(target, node, names, inside=inside)
        elif isinstance(node, (ast.AnnAssign, ast.AugAssign, ast.For, ast.AsyncFor, ast.NamedExpr)):
            if isinstance(node.target, ast.Name):
                names.bound.setdefault(node.target.id, []).append((node.lineno, node, True))
        elif isinstance(node, ast.ImportFrom):
            self.imports |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            self.imports |= {alias.asname or alias.name: alias.name for alias in node.names}

    def _assign(self, target: ast.expr, node: ast.Assign, names: Names, *, inside: bool) -> None:
        if isinstance(target, ast.Name):
            names.bound.setdefault(target.id, []).append((node.end_lineno or node.lineno, node.value, inside))
        elif isinstance(target, ast.Attribute):
            self.attributes.setdefault(target.attr, []).append(node.value)
            if target.attr == "chat_template":
                self.templates.append(node.value)
        elif isinstance(target, (ast.Tuple, ast.List)):
            value, line = node.value, node.end_lineno or node.lineno
            plain = all(isinstance(item, ast.Name) for item in target.elts)
            parts = value.elts if plain and isinstance(value, ast.Tuple) and len(value.elts) == len(target.elts) else []
            for place, item in enumerate(target.elts if plain else walk(target)):
                if isinstance(item, ast.Name):
                    part = ast.copy_location(ast.Subscript(value, ast.Constant(place), ast.Load()), value)
                    bound: ast.AST = parts[place] if parts else part if plain else target
                    names.bound.setdefault(item.id, []).append((line, bound, inside or not plain))

    def value(self, node: ast.AST | None, before: int = 0) -> tuple[ast.AST | None, int]:
        """Return what an expression holds, through names, and the line of the statement that binds it.

        None if a branch decides it.

        Args:
            node: The expression.
            before: The line of the statement around the expression; 0 if it is the expression's own.
        """
        for _ in range(_LONGEST):
            if not isinstance(node, ast.Name):
                break
            found = self._find(node, before or node.lineno)
            if found is None:
                return None, 0
            before, node = found
        return node, before

    def _find(self, node: ast.Name, before: int) -> tuple[int, ast.AST] | None:
        scope, own = self._around.get(id(node)), True
        while scope is not None:
            held = scope.bound.get(node.id)
            if held:
                known = [one for one in held if one[0] < before] if own else held
                known = [one for one in known if not (one[2] and _narrows(one[1], node.id))]
                known = [one for one in known if not isinstance(one[1], ast.arg)] or known  # bound anew in its function
                if not known or any(branch for _, _, branch in known):
                    return None
                line, value, _ = max(known, key=lambda one: one[0])
                return line, value
            scope, own = scope.outer, False
        return None

    def parameter(self, node: ast.AST | None, before: int = 0) -> ast.arg | None:
        """Return the parameter of a function that a name certainly is; None for others."""
        scope = self._around.get(id(node)) if isinstance(node, ast.Name) else None
        held = scope.bound.get(node.id, []) if scope is not None and isinstance(node, ast.Name) else []
        known = [
            value for line, value, _ in held if line < (before or getattr(node, "lineno", 0)) or isinstance(value, ast.arg)
        ]
        return known[0] if len(known) == 1 and isinstance(known[0], ast.arg) else None

    def function(self, node: ast.AST | None) -> Def | None:
        """Return the function that an expression certainly is: one of the file, of a maker, or the call of an object."""
        made, _ = self.value(node)
        if isinstance(made, ast.Call):
            maker, _ = self.value(made.func)
            if isinstance(maker, ast.FunctionDef) and not maker.decorator_list:
                results = returned(maker)
                inner, _ = self.value(results[0]) if len(results) == 1 else (None, 0)
                return inner if isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) else None
            body = maker.body if isinstance(maker, ast.ClassDef) else []
            return next((one for one in body if isinstance(one, ast.FunctionDef) and one.name == "__call__"), None)
        return made if isinstance(made, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) else None

    def full(self, node: ast.AST) -> str:
        """Return the full name of a function that is called: ``transformers.Trainer``; its last part alone if unknown."""
        if isinstance(node, ast.Name):
            return self.imports.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            owner = self.imports.get(node.value.id, "") if isinstance(node.value, ast.Name) else ""
            return f"{owner}.{node.attr}" if owner else node.attr
        return ""

    def chain(self, node: ast.AST | None, before: int = 0) -> Iterator[ast.Call]:
        """Yield the calls that make a data set, the last first: ``map``, ``shuffle``, ``load_dataset``.

        Args:
            node: The data set.
            before: The line of the statement around the expression; 0 if it is the expression's own.
        """
        node, line = self.value(node, before)
        for _ in range(_LONGEST):
            if isinstance(node, ast.Subscript):
                node, line = self._part(node) or (node.value, line)
            elif isinstance(node, ast.Call) and (made := self._made(node)) is not None:
                node, line = made, 0  # what the file's own function returns
            elif isinstance(node, ast.Call):
                yield node
                if not isinstance(node.func, ast.Attribute):
                    return
                node = node.func.value
            elif node is None or not isinstance(node, ast.Name):
                return
            node, line = self.value(node, line)

    def _part(self, node: ast.Subscript) -> tuple[ast.expr, int] | None:
        """Return the item of a tuple that a function of the file returns; None for another subscript."""
        made = self._made(node.value) if isinstance(node.value, ast.Call) else None
        place = node.slice.value if isinstance(node.slice, ast.Constant) else None
        if not isinstance(made, ast.Tuple) or not isinstance(place, int) or not 0 <= place < len(made.elts):
            return None
        return made.elts[place], 0

    def _made(self, call: ast.Call) -> ast.expr | None:
        """Return the one expression that a function of the file returns; None for another function."""
        maker, _ = self.value(call.func) if isinstance(call.func, ast.Name) else (None, 0)
        if not isinstance(maker, ast.FunctionDef) or maker.decorator_list:
            return None
        results = returned(maker)
        return results[0] if len(results) == 1 else None


def _narrows(node: ast.AST, name: str) -> bool:
    """Return whether a value is a data set of this name with fewer rows, or in another order."""
    owner = node.func if isinstance(node, ast.Call) else None
    return (
        isinstance(owner, ast.Attribute)
        and owner.attr in ("select", "shuffle", "filter", "take", "skip")
        and isinstance(owner.value, ast.Name)
        and owner.value.id == name
    )


def _branches(node: ast.AST) -> bool:
    """Return whether a part of a node may not run. A script is run as ``__main__``."""
    main = isinstance(node, ast.If) and isinstance(node.test, ast.Compare) and ast.unparse(node.test.left) == "__name__"
    return isinstance(node, _BRANCHES) and not main


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    """Return the value of a keyword argument; None if the call does not pass it."""
    return next((one.value for one in call.keywords if one.arg == name), None)


def last(call: ast.Call) -> str:
    """Return the last part of the name of the function that is called."""
    return last_name(call.func)


def is_open(call: ast.Call) -> bool:
    """Return whether a call may pass further arguments through ``**``."""
    return any(one.arg is None for one in call.keywords)


def is_constant(node: ast.AST | None, value: object) -> bool:
    """Return whether an expression is a constant of this value and type."""
    return isinstance(node, ast.Constant) and node.value == value and type(node.value) is type(value)


def returned(function: Def) -> list[ast.expr]:
    """Return the values of the function's ``return`` statements."""
    if isinstance(function, ast.Lambda):
        return [function.body]
    found: list[ast.expr] = []
    todo: list[ast.AST] = list(function.body)
    while todo:
        one = todo.pop()
        if isinstance(one, ast.Return) and one.value is not None:
            found.append(one.value)
        if not isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)):
            todo += [child for child in children(one) if isinstance(child, (ast.stmt, ast.ExceptHandler, ast.match_case))]
    return found


def items(node: ast.AST) -> dict[str, ast.expr]:
    """Return the items of a dict display, or of ``dict(...)``, with constant keys."""
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return {key.value: value for key, value in pairs if isinstance(key, ast.Constant) and isinstance(key.value, str)}
    return {one.arg: one.value for one in node.keywords if one.arg} if isinstance(node, ast.Call) else {}


def elements(function: Def, whole: str) -> set[str]:
    """Return the names that hold one item of a parameter at a time, in loops and comprehensions."""
    found: set[str] = set()
    for node in walk(function):
        if not isinstance(node, (ast.For, ast.comprehension)):
            continue
        target, over = node.target, node.iter
        if isinstance(over, ast.Name) and over.id == whole and isinstance(target, ast.Name):
            found.add(target.id)
        if isinstance(over, ast.Call) and isinstance(target, ast.Tuple) and isinstance(over.func, ast.Name):
            shift = 1 if over.func.id == "enumerate" else 0
            for place, given in enumerate(over.args):
                if isinstance(given, ast.Name) and given.id == whole and over.func.id in ("zip", "enumerate"):
                    item = target.elts[place + shift] if place + shift < len(target.elts) else None
                    found |= {item.id} if isinstance(item, ast.Name) else set()
    return found


def stored(function: Def) -> list[str]:
    """Return the names that a function binds or changes, once for each place."""
    nodes = [one for one in ast.walk(function) if isinstance(one, (ast.Name, ast.Attribute, ast.Subscript))]
    owners = [one if isinstance(one, ast.Name) else one.value for one in nodes if isinstance(one.ctx, ast.Store)]
    return [one.id for one in owners if isinstance(one, ast.Name)]
