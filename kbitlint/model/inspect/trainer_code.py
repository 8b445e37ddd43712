"""Facts of the code that a Trainer runs: its own methods, and those of its callbacks."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

from kbitlint.model.attributes import attribute

if TYPE_CHECKING:
    import types
    from collections.abc import Iterator


def calls(trainer: Any, name: str) -> bool | None:
    """Return whether a method of a Trainer or of its callbacks uses a name. None without a Trainer."""
    if trainer is None:
        return None
    callbacks = attribute(attribute(trainer, "callback_handler"), "callbacks") or ()
    classes: list[Any] = [type(owner) for owner in (trainer, *callbacks)]
    return any(_mentions(cls, name) for cls in classes)


@functools.lru_cache(maxsize=1024)
def _mentions(cls: Any, name: str) -> bool:
    return any(name in code.co_names or name in code.co_consts for base in cls.__mro__ for code in codes_of(base))


def codes_of(cls: Any) -> Iterator[types.CodeType]:
    """Yield the code of every method of a class itself, and of the functions inside them."""
    todo = [member.__code__ for member in vars(cls).values() if inspect.isfunction(member)]
    while todo:
        code = todo.pop()
        yield code
        todo += [constant for constant in code.co_consts if inspect.iscode(constant)]
