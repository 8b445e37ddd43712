"""Expressions, evaluated on one path, and the answers of a path to unknown conditions."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

from kbitlint.facts.values import TEXT, UNKNOWN, Span, Style, Symbol
from kbitlint.source.interpreter.base import Interpreter
from kbitlint.source.interpreter.loaded_values import PATH, folder_of, joined_path
from kbitlint.source.interpreter.names import BUILTINS
from kbitlint.source.interpreter.objects import (
    Class,
    Constant,
    Entry,
    Function,
    Object,
    Output,
    Parameters,
    Record,
    Scope,
    Sequence,
    Submodule,
    Tensor,
    TrackedModel,
    Trainer,
)
from kbitlint.source.interpreter.predicates import attribute_of, contains, equal, truth_value
from kbitlint.source.interpreter.relevance import SEEDS

if TYPE_CHECKING:
    from collections.abc import Callable


_THROUGH = ("base_model", "model", "module", "_orig_mod", "pretrained_model")
_MAX_TEXT = 4096
#: Number of copies of a list that ``[value] * 1000`` keeps.
_COPIES = 4
#: The name of the method that evaluates each type of expression.
_METHODS = {kind: f"_{kind.__name__.lower()}" for kind in ast.expr.__subclasses__()}
#: Number of characters or values that take as long to process as one step.
_CHEAP = 64


class Expressions(Interpreter):
    """The part of the interpreter that evaluates expressions and decides conditions."""

    def optimizer_claims(self) -> dict[int, frozenset[bool]]:
        """Return ``TrackedModel.handed`` of each model, by number, so that a caller can restore it."""
        self.effort.spend(len(self.trail.nets) // _CHEAP)
        return {net.number: net.handed for net in self.trail.nets}

    def value(self, node: ast.expr | None) -> Object:
        """Return the value of an expression; an absent one, None, has the value ``Constant(None)``."""
        if node is None:
            return Constant(None)
        made = self.evaluated(node)
        if self.moved and isinstance(made, Constant) and made.flag in self.moved:
            return self.moved[made.flag]
        if made is UNKNOWN and self.equal and isinstance(node, (ast.Attribute, ast.Name, ast.Subscript, ast.Call)):
            return self.equal.get(self.key_of(node), UNKNOWN)
        return made

    def evaluated(self, node: ast.expr) -> Object:
        """Return the value of an expression without what the path's answers tell about it."""
        self.effort.spend()
        method: Callable[[Any], Object] | None = getattr(self, _METHODS.get(type(node), ""), None)
        return UNKNOWN if method is None else method(node)

    def _constant(self, node: ast.Constant) -> Object:
        value = node.value
        return Constant(value) if value is None or isinstance(value, (bool, int, float, str)) else UNKNOWN

    def _name(self, node: ast.Name) -> Object:
        found = self.scope.find(node.id)
        if found is not None:
            return found
        if node.id in ("__name__", "__file__"):
            return Constant("__main__" if node.id == "__name__" else "__file__")
        if node.id.startswith("AutoModel"):
            return Symbol(f"transformers.{node.id}")
        # a star import, or another file, may bind a known name
        return Symbol(node.id) if node.id in SEEDS or node.id in BUILTINS else UNKNOWN

    def _attribute(self, node: ast.Attribute) -> Object:
        owner = self.value(node.value)
        if isinstance(owner, Symbol):
            found = self.member_of(owner.name, node.attr) if self.modules else None
            return Symbol(f"{owner.name}.{node.attr}") if found is None else found
        if isinstance(owner, TrackedModel):
            return owner if node.attr in _THROUGH else attribute_of(owner, node.attr)
        if isinstance(owner, Submodule):
            return owner
        if isinstance(owner, (Record, Class)):
            return self.field(owner, node.attr)
        if isinstance(owner, Output) or (isinstance(owner, Parameters) and node.attr == "data"):
            return owner
        if isinstance(owner, Tensor) and node.attr == "ndim" and owner.shape is not None:
            return Constant(len(owner.shape))
        if isinstance(owner, Trainer) and node.attr in ("model", "model_wrapped"):
            return owner.net or UNKNOWN
        return UNKNOWN

    def field(self, owner: Record | Class, name: str) -> Object:
        """Return an attribute of an instance, or of a class of the file."""
        if isinstance(owner, Record) and name in owner.items:
            return owner.items[name].value
        if name == "__dict__" and isinstance(owner, Record):
            return self.as_dict(owner)
        if name == "parent" and isinstance(owner, Record) and owner.callee == PATH:
            return folder_of(owner, owner.span)
        cls = owner if isinstance(owner, Class) else owner.of
        return UNKNOWN if cls is None else self.member(cls, name, owner)

    def _dict(self, node: ast.Dict) -> Object:
        span = self.text.span(node)
        made = Record(span=span, style=Style.DICT)
        for key, item in zip(node.keys, node.values, strict=True):
            value = self.value(item)
            made.tail = self.text.span(item).end
            if key is None:
                self.merge(made, value)
                continue
            name = self.value(key)
            if isinstance(name, Constant) and isinstance(name.value, str):
                inside = self.text.span(item)
                whole = Span(self.text.span(key).start, inside.end, inside.line)
                made.items[name.value] = Entry(value, inside, whole)
            else:
                made.complete = made.complete and isinstance(name, Constant)
        return made

    def merge(self, into: Record, value: Object) -> None:
        """Add the items of ``**value`` to a record; if they are unknown, the record is incomplete."""
        if isinstance(value, Record) and value.callee == "dict":
            self.effort.spend(len(value.items) // _CHEAP)
            into.items.update(value.items)
            into.complete = into.complete and value.complete
        elif not (isinstance(value, Constant) and value.value is None):
            into.complete = False

    def joined(self, left: Sequence, right: Sequence) -> Sequence:
        """Return the concatenation of two lists."""
        self.effort.spend((len(left.values) + len(right.values)) // _CHEAP)
        return Sequence(left.values + right.values)

    def _tuple(self, node: ast.Tuple | ast.List | ast.Set) -> Object:
        made: list[Object] = []
        for item in node.elts:
            value = self.value(item.value if isinstance(item, ast.Starred) else item)
            if isinstance(item, ast.Starred) and not isinstance(value, Sequence):
                return UNKNOWN
            made += value.values if isinstance(item, ast.Starred) and isinstance(value, Sequence) else [value]
        self.effort.spend(len(made) // _CHEAP)
        return Sequence(made, self.text.span(node))

    _list = _tuple
    _set = _tuple

    def _listcomp(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp) -> Object:
        """Return the parameters, modules or known values that a comprehension collects; UNKNOWN for every other one."""
        first = node.generators[0]
        before = self.optimizer_claims()
        over = self.value(first.iter)
        if len(node.generators) > 1 or not isinstance(over, (Parameters, Submodule)):
            return self.comprehended(node, over)
        one = Parameters(over.net, filtered=over.filtered or bool(first.ifs)) if isinstance(over, Parameters) else over
        if isinstance(over, Parameters) and isinstance(node, (ast.ListComp, ast.SetComp)):
            over.used = True
        elif isinstance(one, Parameters):
            one.once = True
        target = first.target.elts[-1] if isinstance(first.target, ast.Tuple) and first.target.elts else first.target
        self.scope = Scope({target.id: one} if isinstance(target, ast.Name) else {}, self.scope)
        try:
            made = self.value(node.elt)
        finally:
            self.scope = self.scope.outer or self.module
        made = made.values[-1] if isinstance(made, Sequence) and made.values else made
        if isinstance(made, (Parameters, Submodule)):
            return made
        over.net.handed = before.get(over.net.number, frozenset())  # iterating over parameters passes them to no optimizer
        return UNKNOWN

    _setcomp = _listcomp
    _generatorexp = _listcomp

    def _ifexp(self, node: ast.IfExp) -> Object:
        if self._parameter_names and self.filters_parameters(node.test) and truth_value(self.value(node.test)) is None:
            return UNKNOWN  # one value for some parameters, and another one for the others
        return self.value(node.body if self.decide(node.test) else node.orelse)

    def _boolop(self, node: ast.BoolOp) -> Object:
        value: Object = UNKNOWN
        for part in node.values:
            value = self.value(part)
            known = truth_value(value)
            if known is None:
                return UNKNOWN
            if known is isinstance(node.op, ast.Or):
                return value
        return value

    def _unaryop(self, node: ast.UnaryOp) -> Object:
        value = self.value(node.operand)
        if isinstance(node.op, ast.Not):
            known = truth_value(value)
            return UNKNOWN if known is None else Constant(not known, _flag_of(value))
        if isinstance(node.op, ast.USub) and isinstance(value, Constant) and isinstance(value.value, (int, float)):
            return Constant(-value.value)
        return UNKNOWN

    def _compare(self, node: ast.Compare) -> Object:
        if len(node.ops) != 1:
            return UNKNOWN
        left, right, operator = self.value(node.left), self.value(node.comparators[0]), node.ops[0]
        flag = _flag_of(left) or _flag_of(right)
        if isinstance(operator, (ast.Is, ast.IsNot, ast.Eq, ast.NotEq)):
            alike = equal(left, right)
            if alike is None:
                return UNKNOWN
            flag = "" if flag.startswith("$") and Constant(None) in (left, right) else flag  # a variable with a default is set
            return Constant(alike is isinstance(operator, (ast.Is, ast.Eq)), flag)
        if isinstance(operator, (ast.In, ast.NotIn)):
            self.effort.spend(len(right.values) // _CHEAP if isinstance(right, Sequence) else 0)
            inside = contains(left, right)
            return UNKNOWN if inside is None else Constant(inside is isinstance(operator, ast.In), flag)
        return UNKNOWN

    def _binop(self, node: ast.BinOp) -> Object:
        left, right = self.value(node.left), self.value(node.right)
        if isinstance(node.op, ast.BitOr) and isinstance(left, Record) and isinstance(right, Record):
            self.effort.spend((len(left.items) + len(right.items)) // _CHEAP)
            made = Record(items={**left.items, **right.items}, complete=left.complete and right.complete, style=Style.DICT)
            made.span = self.text.span(node)
            return made
        if isinstance(node.op, ast.Add) and isinstance(left, Constant) and isinstance(right, Constant):
            texts = left.value, right.value
            if isinstance(texts[0], str) and isinstance(texts[1], str) and len(texts[0]) + len(texts[1]) < _MAX_TEXT:
                return Constant(texts[0] + texts[1])
        if isinstance(node.op, ast.Add) and isinstance(left, Sequence) and isinstance(right, Sequence):
            return self.joined(left, right)
        if isinstance(node.op, ast.Mult) and isinstance(left, Sequence) and isinstance(right, Constant):
            times = right.value if isinstance(right.value, int) else 0
            self.effort.spend(len(left.values) // _CHEAP)
            # what is asked of a list is whether all of its values are alike
            return Sequence(left.values * min(times, _COPIES), self.text.span(node)) if times > 0 else UNKNOWN
        if isinstance(node.op, ast.Div) and PATH in (getattr(left, "callee", ""), getattr(right, "callee", "")):
            return joined_path([left, right], self.text.span(node))
        # a scaled loss is still the model's loss; one without a graph may get that of another tensor
        outputs = [side for side in (left, right) if isinstance(side, Output)]
        tracked = next((side for side in outputs if side.origin is None), None)
        alone = all(isinstance(side, (Output, Constant)) for side in (left, right))
        return tracked or (outputs[0] if outputs and alone else UNKNOWN)

    def _subscript(self, node: ast.Subscript) -> Object:
        owner, key = self.value(node.value), self.value(node.slice)
        if isinstance(owner, Record) and isinstance(key, Constant) and isinstance(key.value, str):
            return owner.get(key.value)
        if isinstance(owner, Sequence) and isinstance(key, Constant) and isinstance(key.value, int):
            return owner.values[key.value] if -len(owner.values) <= key.value < len(owner.values) else UNKNOWN
        if isinstance(owner, Parameters):
            return Parameters(owner.net, filtered=True)
        if isinstance(owner, Tensor):
            return Tensor(owner.low, owner.high, None)
        if owner == Symbol("os.environ"):
            return TEXT
        return owner if isinstance(owner, (Output, Submodule)) else UNKNOWN

    def _joinedstr(self, node: ast.JoinedStr) -> Object:
        parts = [self.value(part.value if isinstance(part, ast.FormattedValue) else part) for part in node.values]
        texts = [str(part.value) for part in parts if isinstance(part, Constant)]
        return Constant("".join(texts)) if len(texts) == len(parts) and sum(map(len, texts)) < _MAX_TEXT else UNKNOWN

    def _lambda(self, node: ast.Lambda) -> Object:
        return Function(node, self.scope)

    def _namedexpr(self, node: ast.NamedExpr) -> Object:
        value = self.value(node.value)
        self.scope.names[node.target.id] = value
        return value

    def _await(self, node: ast.Await) -> Object:
        return self.value(node.value)

    def _starred(self, node: ast.Starred) -> Object:
        self.value(node.value)
        return UNKNOWN


def _flag_of(value: Object) -> str:
    """Return the option of the command line whose default a value is; empty if it is none."""
    return value.flag if isinstance(value, Constant) else ""
