"""``dataclass`` of slotted classes whose ``__init__`` is compiled when it is first used, and nothing else is.

``dataclasses.dataclass`` writes up to eleven methods of a class as text and compiles each: 0.3 to 0.7 ms a class on Python
3.11. A start imports a hundred such classes and makes instances of few. Here the other methods are closures. The classes
are dataclasses for ``dataclasses.fields``, ``replace`` and ``asdict``, and type checkers read the original decorator.
"""

from __future__ import annotations

import dataclasses
import operator
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["dataclass"]

Class = TypeVar("Class", bound=type)


class _Factory:
    """The default of a parameter whose value a factory makes. It prints as in ``dataclasses``."""

    def __repr__(self) -> str:
        return "<factory>"


_FACTORY = _Factory()


class _Initializer:
    """The ``__init__`` of a class until it is first read, by a call or by ``inspect``."""

    def __init__(self, owner: type, *, frozen: bool) -> None:
        self.owner, self.frozen = owner, frozen

    def __get__(self, instance: object, owner: type) -> Any:
        """Compile ``__init__``, put it into the class, and return it, bound to the instance if there is one."""
        compiled = _initializer(self.owner, frozen=self.frozen)
        self.owner.__init__ = compiled  # type: ignore[misc]  # from now on the class has it
        return compiled.__get__(instance, owner)


def _initializer(cls: type, *, frozen: bool) -> Any:
    """Return the ``__init__`` of a class with these fields.

    Raises:
        TypeError: If a field is keyword-only or no parameter.
    """
    known: dict[str, Any] = {"_FACTORY": _FACTORY}
    parameters, lines = ["self"], []
    for field in dataclasses.fields(cls):
        name, value = field.name, field.name
        if field.kw_only or not field.init:
            raise TypeError(f"{cls.__qualname__}.{name}: only fields that are usual parameters are supported")
        if field.default_factory is not dataclasses.MISSING:
            known[f"_new_{name}"] = field.default_factory
            parameters.append(f"{name}=_FACTORY")
            value = f"_new_{name}() if {name} is _FACTORY else {name}"
        elif field.default is not dataclasses.MISSING:
            known[f"_default_{name}"] = field.default
            parameters.append(f"{name}=_default_{name}")
        else:
            parameters.append(name)
        known[f"_set_{name}"] = getattr(cls, name).__set__  # of the slot: object.__setattr__ would look for it each time
        lines.append(f"_set_{name}(self, {value})" if frozen else f"self.{name} = {value}")
    lines += ["self.__post_init__()"] if hasattr(cls, "__post_init__") else []
    exec(f"def __init__({', '.join(parameters)}):\n " + "\n ".join(lines or ["pass"]), known)  # noqa: S102  # names of fields
    compiled = known["__init__"]
    compiled.__qualname__, compiled.__module__ = f"{cls.__qualname__}.__init__", cls.__module__
    compiled.__annotations__ = {field.name: field.type for field in dataclasses.fields(cls)} | {"return": None}
    return compiled


def _repr(self: Any) -> str:
    values = ", ".join(f"{field.name}={getattr(self, field.name)!r}" for field in dataclasses.fields(self) if field.repr)
    return f"{type(self).__qualname__}({values})"


def _refuse_to_set(_: object, name: str, __: object) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_to_delete(_: object, name: str) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")


def _state(self: Any) -> list[Any]:
    return [getattr(self, field.name) for field in dataclasses.fields(self)]


def _restore(self: Any, state: list[Any]) -> None:
    for field, value in zip(dataclasses.fields(self), state, strict=True):
        object.__setattr__(self, field.name, value)


_FROZEN = {
    "__setattr__": _refuse_to_set,
    "__delattr__": _refuse_to_delete,
    "__getstate__": _state,  # the usual pickling and copying of slots sets attributes
    "__setstate__": _restore,
}
_ORDER = ("lt", "le", "gt", "ge")


def _comparisons(cls: type, *, frozen: bool, order: bool) -> dict[str, Any]:
    """Return the methods that compare instances of one class by their fields."""
    names = [field.name for field in dataclasses.fields(cls) if field.compare]
    key: Callable[[Any], tuple[Any, ...]]
    key = operator.attrgetter(*names) if len(names) > 1 else lambda self: tuple(getattr(self, name) for name in names)

    def comparison(compare: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        def compared(self: object, other: object) -> Any:
            return compare(key(self), key(other)) if other.__class__ is self.__class__ else NotImplemented

        return compared

    methods: dict[str, Any] = {
        f"__{name}__": comparison(getattr(operator, name)) for name in ("eq", *(_ORDER if order else ()))
    }
    return methods | {"__hash__": (lambda self: hash(key(self))) if frozen else None}


def _dataclass(*, slots: bool, frozen: bool = False, eq: bool = True, order: bool = False) -> Callable[[Class], Class]:
    """Return the decorator of a class, which has slots. A method that the class itself defines stays.

    Fields may have a default, a factory, ``compare`` and ``repr``. A class made by ``dataclasses.dataclass`` cannot be
    frozen if it inherits from one of these.
    """
    if not slots:
        raise TypeError("a lazy dataclass has slots")

    def decorate(cls: Class) -> Class:
        own = vars(cls)
        cls.__doc__ = cls.__doc__ or cls.__name__  # without one, dataclasses takes time to write a signature there
        made: Any = dataclasses.dataclass(init=False, repr=False, eq=False, slots=True)(cls)
        methods = {"__init__": _Initializer(made, frozen=frozen), "__repr__": _repr}
        methods |= _comparisons(made, frozen=frozen, order=order) if eq else {}
        for name, method in (methods | (_FROZEN if frozen else {})).items():
            if name not in own:
                setattr(made, name, method)
        return cast("Class", made)

    return decorate


if TYPE_CHECKING:
    from dataclasses import dataclass
else:
    dataclass = _dataclass
