"""Casts of single parts of a model: a loop that casts the norms and leaves the head, or a head that is cast by itself."""

from __future__ import annotations

import ast
import dataclasses
import operator
from typing import TYPE_CHECKING

from kbitlint.facts.model_state import BIAS, NORMS
from kbitlint.facts.values import Call, Span, Value
from kbitlint.source.interpreter.base import Interpreter
from kbitlint.source.interpreter.objects import Constant, Scope, TrackedModel
from kbitlint.source.interpreter.predicates import truth_value

if TYPE_CHECKING:
    from collections.abc import Callable

#: the last norm of a decoder, and heads, as most classes name them; with the dimensions of the weight
_NORMS = (("model.norm", 1), ("decoder.final_layer_norm", 1))
_HEADS = (("lm_head", 2), ("score", 2))
_COMPARE: dict[type, Callable[[int, int], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


class CastParts(Interpreter):
    """The part of the interpreter that finds which parts of a model a cast reaches."""

    def cast_part(self, net: TrackedModel, owner: ast.expr, dtype: Value, span: Span, *, ending: str = "") -> None:
        """Record a cast of a parameter or module: in a loop over all of them, of those that its conditions choose.

        Args:
            net: The model.
            owner: The expression that is cast.
            dtype: The dtype; None if it is not known.
            span: The cast.
            ending: The last part of the names that the loop goes through, such as ``.weight``.
        """
        state = net.state
        looped = isinstance(owner, ast.Name) and owner.id in self._parameter_names
        norms, heads = ({self._chooses(f"{name}{ending}", dims) for name, dims in parts} for parts in (_NORMS, _HEADS))
        bias = bool(ending) and self._chooses("lm_head.bias", 1)
        if looped and heads == {False} and norms == {False} and bias is False:
            return
        if looped and heads == {False} and norms == {True}:
            widened = Call(BIAS if bias else NORMS, span) if dtype == "float32" else None
            net.state = dataclasses.replace(state, widened=widened, recast=state.recast or dtype is None)
        else:
            net.state = dataclasses.replace(state, recast=True)

    def _chooses(self, path: str, dims: int) -> bool | None:
        """Return whether the conditions of a loop lead to the current statement for a name; None if they do not tell."""
        self.effort.spend()
        outer, self.scope = self.scope, Scope(dict.fromkeys(self._parameter_names, Constant(path)), self.scope)
        try:
            held = [(self._holds_for(test, dims), answer) for test, answer in self.filters]
        finally:
            self.scope = outer
        if any(known is not None and known is not answer for known, answer in held):
            return False
        return None if any(known is None for known, _ in held) else True

    def _holds_for(self, test: ast.expr, dims: int) -> bool | None:
        """Return whether a condition holds for a parameter of some dimensions; the scope binds its name."""
        if isinstance(test, ast.BoolOp):
            either = isinstance(test.op, ast.Or)
            held = [self._holds_for(one, dims) for one in test.values]
            return either if either in held else None if None in held else not either
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            inner = self._holds_for(test.operand, dims)
            return None if inner is None else not inner
        if isinstance(test, ast.Compare) and _counts_dimensions(test.left):
            compare, last = _COMPARE.get(type(test.ops[0])), test.comparators[0]
            number = last.value if isinstance(last, ast.Constant) else None
            return compare(dims, number) if compare is not None and isinstance(number, int) else None
        if isinstance(test, ast.Call) and isinstance(test.func, ast.Name) and test.func.id == "isinstance":
            return dims == 1 if _are_norms(test.args[-1]) else None
        return truth_value(self.value(test))


def _counts_dimensions(node: ast.expr) -> bool:
    """Return whether an expression is the number of dimensions of a tensor: ``p.ndim``, ``p.dim()``, ``len(p.shape)``."""
    if isinstance(node, ast.Attribute):
        return node.attr == "ndim"
    if not isinstance(node, ast.Call):
        return False
    if isinstance(node.func, ast.Attribute):
        return node.func.attr in ("dim", "ndimension")
    shapes = [one for one in node.args if isinstance(one, ast.Attribute) and one.attr == "shape"]
    return isinstance(node.func, ast.Name) and node.func.id == "len" and len(shapes) == 1


def _are_norms(node: ast.expr) -> bool:
    """Return whether an expression is a class of norms, or several: ``(LlamaRMSNorm, torch.nn.LayerNorm)``."""
    given = node.elts if isinstance(node, ast.Tuple) else [node]
    names = [one.attr if isinstance(one, ast.Attribute) else one.id if isinstance(one, ast.Name) else "" for one in given]
    return bool(names) and all(name.endswith("Norm") for name in names) and any("RMSNorm" in name for name in names)
