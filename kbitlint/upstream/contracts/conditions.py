"""The language in which rows state when a call is refused: Python expressions over the call's arguments.

``truth`` evaluates an expression in three-valued logic, so that an argument of unknown value decides nothing. Names
are arguments of the call, with the defaults of its class; ``args.fp16`` is an argument of a call that is an argument.
``processes`` is the number of processes of the run.
``model.adapted``, ``model.packed`` and others are the state of the model that the call receives; see ``Subject.state``.
``call.load_in_4bit`` is whether the call passes an argument.
"""

from __future__ import annotations

import ast
import functools
import operator
import string
from typing import TYPE_CHECKING, Any

from kbitlint.facts.values import FUNCTION, TEXT, UNKNOWN, Call, Symbol, Value
from kbitlint.upstream.special_tokens import lacks_template

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kbitlint.upstream.contracts.subject import Subject

#: libraries whose enum members and dtypes are known by their last name; other imported names may hold any value
_LIBRARIES = ("torch.", "transformers.", "peft.", "trl.", "accelerate.")
#: signs of a text that names modules and is no pattern
_PLAIN = frozenset(f"{string.ascii_letters}{string.digits}_-., ")
_COMPARE: dict[type, Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


def truth(condition: str, subject: Subject) -> bool | None:
    """Return whether a condition holds for a call; None if the file does not tell."""
    value = _value(parsed(condition), subject)
    return None if value is UNKNOWN else bool(value)


@functools.cache
def parsed(condition: str) -> ast.expr:
    """Return the syntax tree of a condition.

    Raises:
        SyntaxError: The text is no expression.
    """
    return ast.parse(condition, mode="eval").body


def names(condition: str) -> tuple[str, ...]:
    """Return the arguments that a condition names, in their order; ``args.fp16`` counts as ``args``."""
    found = sorted(
        (node for node in ast.walk(parsed(condition)) if isinstance(node, ast.Name)),
        key=lambda node: (node.lineno, node.col_offset),
    )
    return tuple(dict.fromkeys(node.id for node in found if node.id not in (*FUNCTIONS, "processes", "call")))


def attributes(condition: str) -> tuple[tuple[str, str], ...]:
    """Return the arguments of arguments that a condition names: (``args``, ``fp16``)."""
    return tuple(
        (node.value.id, node.attr)
        for node in ast.walk(parsed(condition))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id not in ("model", "call")
    )


def _value(node: ast.expr, subject: Subject) -> Any:
    evaluate = _NODES.get(type(node))
    if evaluate is None:
        raise SyntaxError(f"no condition: {ast.unparse(node)}")
    return evaluate(node, subject)


def _attribute(node: Any, subject: Subject) -> Any:
    if isinstance(node.value, ast.Name) and node.value.id == "model":
        return _plain(subject.state(node.attr))
    if isinstance(node.value, ast.Name) and node.value.id == "call":
        return True if subject.call.argument(node.attr) else UNKNOWN if subject.call.gives(node.attr) else False
    owner = _value(node.value, subject)
    return _plain(subject.argument(owner, node.attr)) if isinstance(owner, Call) else owner and UNKNOWN


def _unary(node: Any, subject: Subject) -> Any:
    value = _value(node.operand, subject)
    if isinstance(node.op, ast.USub):
        return -value
    held = _truth(value)
    return UNKNOWN if held is None else not held


def _arithmetic(node: Any, subject: Subject) -> Any:
    left, right = _value(node.left, subject), _value(node.right, subject)
    if not _numbers(left, right):
        return UNKNOWN
    if isinstance(node.op, ast.Mult):
        return left * right
    return left - right if isinstance(node.op, ast.Sub) else left % right if right else UNKNOWN


def _applied(node: Any, subject: Subject) -> Any:
    given = [_value(argument, subject) for argument in node.args]
    if given[0] == TEXT:
        return {"text": True, "flag": False, "whole": False, "number": False, "listed": False}.get(node.func.id, UNKNOWN)
    return UNKNOWN if given[0] is UNKNOWN else FUNCTIONS[node.func.id](*given)


_NODES: Mapping[type, Callable[[Any, Subject], Any]] = {
    ast.Constant: lambda node, _: node.value,
    ast.Tuple: lambda node, subject: tuple(_value(item, subject) for item in node.elts),
    ast.Name: lambda node, subject: _plain(subject.argument(subject.call, node.id)),
    ast.Attribute: _attribute,
    ast.BoolOp: lambda node, subject: _joined(isinstance(node.op, ast.Or), node.values, subject),
    ast.UnaryOp: _unary,
    ast.BinOp: _arithmetic,
    ast.Compare: lambda node, subject: _compared(node.ops[0], _value(node.left, subject), _value(node.comparators[0], subject)),
    ast.Call: _applied,
}


def _plain(value: Value) -> Value:
    """Return a value with an enum member or dtype of a library as its last name; unknown symbols become UNKNOWN."""
    if isinstance(value, Symbol) and value not in (TEXT, FUNCTION):
        return value.last if value.name.startswith(_LIBRARIES) else UNKNOWN
    return value


def _truth(value: Any) -> bool | None:
    if value is UNKNOWN or value == TEXT:
        return None
    if isinstance(value, Call):
        return True if value.callee != "dict" or value.arguments else False if value.complete else None
    return bool(value)


def _joined(either: bool, nodes: list[ast.expr], subject: Subject) -> Any:  # noqa: FBT001  # or, else and
    unknown = False
    for node in nodes:
        held = _truth(_value(node, subject))
        if held is either:
            return either
        unknown = unknown or held is None
    return UNKNOWN if unknown else not either


def _compared(operation: ast.cmpop, left: Any, right: Any) -> Any:
    if left is UNKNOWN or right is UNKNOWN:
        return UNKNOWN
    match operation:
        case ast.Is():
            return left is right
        case ast.IsNot():
            return left is not right
        case ast.Eq():
            return _same(left, right)
        case ast.NotEq():
            held = _same(left, right)
            return held if held is UNKNOWN else not held
        case ast.In():
            return _within(left, right)
        case ast.NotIn():
            held = _within(left, right)
            return held if held is UNKNOWN else not held
        case _:
            return _COMPARE[type(operation)](left, right) if _numbers(left, right) else UNKNOWN


def _same(left: Any, right: Any) -> Any:
    if isinstance(left, Call) or isinstance(right, Call):
        return False if left is None or right is None else UNKNOWN
    if TEXT in (left, right):
        return UNKNOWN if isinstance(left, str) or isinstance(right, str) or left == right else False
    if isinstance(left, str) and isinstance(right, str):
        return left.lower() == right.lower()  # members of enums are upper case, their values lower case
    return left == right and isinstance(left, bool) == isinstance(right, bool)


def _within(item: Any, values: Any) -> Any:
    if isinstance(values, str):
        return item in values if isinstance(item, str) else UNKNOWN
    if not isinstance(values, tuple):
        return UNKNOWN if values is not None else False
    held = [_same(item, value) if value is not UNKNOWN else UNKNOWN for value in values]
    return True if True in held else UNKNOWN if UNKNOWN in held else False


def _numbers(*values: Any) -> bool:
    return all(isinstance(value, (int, float)) for value in values)


def _plugin(value: Any, ending: str) -> Any:
    """Return whether a call, or one of several, makes an object of a class whose name ends so."""
    given = value if isinstance(value, tuple) else (value,)
    if any(isinstance(one, Call) and one.callee.endswith(ending) for one in given):
        return True
    return False if value is None else UNKNOWN


def _beyond(value: Any, *known: str) -> Any:
    """Return whether a text, a list or the keys of a dict name something that is not known."""
    keys = tuple(one.name for one in value.arguments) if isinstance(value, Call) and value.callee == "dict" else value
    given = (keys,) if isinstance(keys, str) else keys
    if not isinstance(given, tuple):
        return False if value is None else UNKNOWN
    return any(isinstance(one, str) and one not in known for one in given)


def _starting(values: Any, key: str, start: str) -> Any:
    """Return whether one of several dicts holds a text under a key that starts so."""
    if not isinstance(values, tuple):
        return UNKNOWN if values is not None else False
    held = [one.value(key) for one in values if isinstance(one, Call)]
    return any(isinstance(text, str) and text.lower().startswith(start) for text in held) or (
        UNKNOWN if UNKNOWN in held else False
    )


def _foreign(values: Any, key: str, known: tuple[str, ...], dotted: bool = False) -> Any:  # noqa: FBT001, FBT002  # of a condition
    """Return whether one of several dicts holds a name under a key that is not known; ``a:b`` names a style of ``a``."""
    if not isinstance(values, tuple):
        return UNKNOWN if values is not None else False
    held = [one.value(key) for one in values if isinstance(one, Call)]
    named = [text.partition(":")[0] for text in held if isinstance(text, str) and not text.startswith("sharegpt")]
    owners = {one.partition(".")[0] for one in known}
    own = [text for text in named if "." in text and (dotted or text.partition(".")[0] not in owners)]  # may be the user's
    return any(text not in known for text in named if text not in own) or (UNKNOWN if UNKNOWN in held else False)


def _is_made(value: Any, name: str) -> Any:
    return value.callee.rpartition(".")[2] == name if isinstance(value, Call) and value.callee != "dict" else value and UNKNOWN


#: the functions of conditions; each gets known values
FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "text": lambda value: isinstance(value, str),
    "flag": lambda value: isinstance(value, bool),
    "whole": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, (int, float)),
    "listed": lambda value: isinstance(value, tuple),
    "size": lambda value: len(value) if isinstance(value, (tuple, str)) else UNKNOWN,
    "starts": lambda value, start: isinstance(value, str) and value.lower().startswith(start),
    "has": lambda value, part: part in value.lower() if isinstance(value, str) else False,
    "plain": lambda value: isinstance(value, str) and not set(value) - _PLAIN,
    "made": _is_made,
    "kind": lambda value: value.callee[5:] if isinstance(value, Call) and value.callee.startswith("peft.") else UNKNOWN,
    "plugin": _plugin,
    "beyond": _beyond,
    "starting": _starting,
    "foreign": _foreign,
    "templateless": lacks_template,
    "within": lambda values, *known: any(one in known for one in values) if isinstance(values, tuple) else UNKNOWN,
}
