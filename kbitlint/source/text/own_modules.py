"""Classes that a script writes itself, read from the text: heads beside a model, and callbacks that touch files."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kbitlint.facts.own_modules import FileUse, Head

if TYPE_CHECKING:
    from collections.abc import Iterator

#: modules of torch with weights
_WEIGHTED = frozenset(("Linear", "Embedding", "Conv1d", "Conv2d", "Bilinear", "LSTM", "GRU", "MultiheadAttention", "Parameter"))
_CASTS = frozenset(("float", "to", "type", "type_as", "half", "bfloat16", "double"))
_DTYPES = frozenset(("bfloat16", "float16", "half", "float64", "double", "dtype"))
#: functions that raise if their file is missing
_NEEDS_FILE = frozenset(
    ("os.remove", "os.unlink", "os.rename", "os.replace", "shutil.move", "shutil.copy", "shutil.copyfile", "torch.load")
)


def heads(module: ast.Module) -> Iterator[Head]:
    """Yield each module with weights that a class of the file applies to the output of a model."""
    for cls in _classes(module, "Module"):
        methods = {item.name: item for item in cls.body if isinstance(item, ast.FunctionDef)}
        init, forward = methods.get("__init__"), methods.get("forward")
        if init is None or forward is None:
            continue
        own = {
            target.attr: item
            for item in ast.walk(init)
            if isinstance(item, ast.Assign)
            and isinstance(target := item.targets[0], ast.Attribute)
            and isinstance(target.value, ast.Name)
            and target.value.id == "self"
        }
        weighted = {name: item for name, item in own.items() if _has_weights(item.value)}
        flow = _Flow(set(own) - set(weighted), set(weighted))
        flow.follow(forward.body)
        for name, (body, line) in flow.applied.items():
            cast = any(isinstance(node, (ast.Attribute, ast.keyword)) and _is_dtype(node) for node in ast.walk(weighted[name]))
            yield Head(name, weighted[name].lineno, body, 0 if cast else line)


def _has_weights(value: ast.expr) -> bool:
    """Return whether an expression makes a module of torch that has weights."""
    calls = [node.func for node in ast.walk(value) if isinstance(node, ast.Call)]
    return any((func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "")) in _WEIGHTED for func in calls)


def _is_dtype(node: ast.Attribute | ast.keyword) -> bool:
    return (node.attr if isinstance(node, ast.Attribute) else node.arg) in _DTYPES


class _Flow:
    """The output of a model on its way through ``forward``.

    Args:
        bodies: The attributes that may hold the model.
        heads: The attributes that hold modules with weights.
    """

    def __init__(self, bodies: set[str], heads: set[str]) -> None:
        self._bodies, self._heads = bodies, heads
        self._names: dict[str, tuple[str, bool]] = {}
        self.applied: dict[str, tuple[str, int]] = {}
        """The body and the line of each head that gets its output; line 0 if the output is cast before."""

    def follow(self, statements: list[ast.stmt]) -> None:
        """Follow the statements of ``forward`` in the order of the text."""
        for statement in statements:
            for node in ast.iter_child_nodes(statement):
                if isinstance(node, ast.expr):
                    found = self._value(node)
                    targets = statement.targets if isinstance(statement, ast.Assign) else []
                    for name in (inner.id for target in targets for inner in ast.walk(target) if isinstance(inner, ast.Name)):
                        self._names.pop(name, None)
                        if found is not None:
                            self._names[name] = found
            for block in ("body", "orelse"):
                self.follow([item for item in getattr(statement, block, []) if isinstance(item, ast.stmt)])

    def _value(self, node: ast.expr) -> tuple[str, bool] | None:
        """Return the body whose output an expression holds, and whether its dtype may differ; None if it holds none."""
        if isinstance(node, ast.Name):
            return self._names.get(node.id)
        if isinstance(node, ast.Constant) or (isinstance(node, ast.Attribute) and node.attr in ("dtype", "device", "shape")):
            return None
        if isinstance(node, ast.BinOp):
            return self._promoted(node)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            return self._called(node, node.func)
        return _joined([self._value(child) for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)])

    def _promoted(self, node: ast.BinOp) -> tuple[str, bool] | None:
        """Return the value of an operation, which has the wider dtype of both sides."""
        sides = [self._value(side) for side in (node.left, node.right) if not isinstance(side, ast.Constant)]
        found = _joined(sides)
        return found and (found[0], found[1] or None in sides)

    def _called(self, node: ast.Call, func: ast.Attribute) -> tuple[str, bool] | None:
        given = [*node.args, *(keyword.value for keyword in node.keywords)]
        inside = _joined([self._value(item) for item in given])
        if isinstance(func.value, ast.Name) and func.value.id == "self":
            if func.attr in self._heads and inside is not None:
                self.applied.setdefault(func.attr, (inside[0], 0 if inside[1] else node.lineno))
                return inside[0], True
            return inside or ((func.attr, False) if func.attr in self._bodies else None)
        owner = self._value(func.value)
        if func.attr not in _CASTS:
            return owner or inside
        like = [item.value if isinstance(item, ast.Attribute) and item.attr == "dtype" else item for item in given]
        same = _joined([self._value(item) for item in like])
        if same is not None and not same[1]:
            return same  # to(x.dtype), or type_as(x)
        return owner and (owner[0], True)


def _joined(values: list[tuple[str, bool] | None]) -> tuple[str, bool] | None:
    """Return the value that an expression with these parts holds; its dtype may differ if that of one part does."""
    found = [one for one in values if one is not None]
    return (found[0][0], any(one[1] for one in found)) if found else None


def file_uses(module: ast.Module) -> Iterator[FileUse]:
    """Yield each call in a method of a callback that raises if its file is missing, and that no condition guards."""
    for cls in _classes(module, "Callback"):
        for method in cls.body:
            if not isinstance(method, ast.FunctionDef) or method.name not in ("on_save", "on_evaluate", "on_step_end"):
                continue
            texts = {
                statement.targets[0].id: statement.value
                for statement in method.body
                if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)
            }
            for statement in method.body:
                call = statement.value if isinstance(statement, (ast.Expr, ast.Assign)) else None
                function = ast.unparse(call.func) if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) else ""
                if isinstance(call, ast.Call) and function in _NEEDS_FILE and call.args:
                    given = call.args[0]
                    given = texts.get(given.id, given) if isinstance(given, ast.Name) else given
                    yield FileUse(function, _file_of(given), call.lineno, cls.name)


def _file_of(node: ast.expr) -> str:
    """Return the name of the file at the end of a path; empty if the text does not tell it."""
    texts = [inner.value for inner in ast.walk(node) if isinstance(inner, ast.Constant) and isinstance(inner.value, str)]
    return texts[-1].rpartition("/")[2] if texts else ""


def _classes(module: ast.Module, base: str) -> Iterator[ast.ClassDef]:
    """Yield the classes of the file that extend a class whose name ends so."""
    for statement in module.body:
        if isinstance(statement, ast.ClassDef) and any(ast.unparse(one).endswith(base) for one in statement.bases):
            yield statement
