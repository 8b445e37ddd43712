"""The journal of a fix: every change is entered before it is made, so that any failure leaves the model as it was."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn


class Journal:
    """What must be undone, in the order in which it was done.

    Args:
        forgets: Whether nothing will be undone, so that nothing has to be kept: for models that are given up on failure.
    """

    def __init__(self, *, forgets: bool = False) -> None:
        self.forgets = forgets
        self._undo: list[Callable[[], None]] = []

    def record(self, undo: Callable[[], None]) -> None:
        """Remember how to take back the change that is about to be made."""
        if not self.forgets:
            self._undo.append(undo)

    def rollback(self) -> None:
        """Take everything back, newest first. Ctrl-C waits until all is restored."""
        interrupted: KeyboardInterrupt | None = None
        while self._undo:
            try:
                self._undo[-1]()
                self._undo.pop()
            except KeyboardInterrupt as interrupt:
                interrupted = interrupt
        if interrupted is not None:
            raise interrupted

    def __len__(self) -> int:
        return len(self._undo)


@contextmanager
def journaled(journal: Journal) -> Iterator[Journal]:
    """Roll the journal back on any exception, KeyboardInterrupt included."""
    try:
        yield journal
    except BaseException:
        journal.rollback()
        raise


class Journals(list[Journal]):
    """The journals of one model object. A copy of the model has none: what they restore is the original's."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Journals:
        """An empty list."""
        return Journals()

    def __reduce__(self) -> tuple[type[Journals], tuple[()]]:
        """An empty list, when it is pickled."""
        return (Journals, ())


#: where a model holds its journals. They hold the model, so only the model itself may hold them: it could never be freed
_JOURNALS = "_kbitlint_journals"


def keep(model: nn.Module, journal: Journal) -> None:
    """Remember a journal with its model, for ``undo``."""
    if len(journal):
        model.__dict__.setdefault(_JOURNALS, Journals()).append(journal)


def undo_last(model: nn.Module) -> None:
    """Take back the newest fix of this model object."""
    journals = model.__dict__[_JOURNALS]
    journals.pop().rollback()
    if not journals:
        del model.__dict__[_JOURNALS]


def undo(model: nn.Module) -> int:
    """Take back every fix that was applied to this model object, newest first; gives how many there were."""
    journals = [journal for journal in model.__dict__.pop(_JOURNALS, ()) if len(journal)]
    for journal in reversed(journals):
        journal.rollback()
    return len(journals)


_ABSENT = object()


def set_attribute(owner: Any, name: str, value: Any, journal: Journal) -> None:
    """Set an attribute; the journal restores it."""
    restore_attribute_on_rollback(owner, name, journal)
    setattr(owner, name, value)


def restore_attribute_on_rollback(owner: Any, name: str, journal: Journal) -> None:
    """Restore an instance attribute, or its absence: a class default must not turn into an instance's own."""
    before = owner.__dict__.get(name, _ABSENT)

    def restore() -> None:
        if before is _ABSENT:
            owner.__dict__.pop(name, None)
        else:
            owner.__dict__[name] = before

    journal.record(restore)


def restore_hooks_on_rollback(module: nn.Module, journal: Journal) -> None:
    """Restore every dictionary that registering a forward hook writes to, in its order."""
    names = (
        "_forward_hooks",
        "_forward_hooks_with_kwargs",
        "_forward_hooks_always_called",
        "_forward_pre_hooks",
        "_forward_pre_hooks_with_kwargs",
    )
    before = {name: list(module.__dict__[name].items()) for name in names}

    def restore() -> None:
        for name, items in before.items():
            hooks = module.__dict__[name]
            hooks.clear()
            hooks.update(items)

    journal.record(restore)
