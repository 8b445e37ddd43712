"""The journal of a fix. Every change is recorded before it is made, so a rollback after any failure restores the model."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn


class Journal:
    """The undo functions of all changes, in the order of the changes.

    Args:
        forgets: Whether undo functions are dropped, for models that are discarded on failure.
    """

    def __init__(self, *, forgets: bool = False) -> None:
        self.forgets = forgets
        self._undo: list[Callable[[], None]] = []

    def record(self, undo: Callable[[], None]) -> None:
        """Add a function that undoes the change that is about to be made."""
        if not self.forgets:
            self._undo.append(undo)

    def rollback(self) -> None:
        """Undo all changes, newest first.

        Ctrl-C waits until everything is restored; KeyboardInterrupt is raised afterwards.
        """
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
    """The journals of one model object. A copy of the model has none, because undo functions restore the original."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Journals:
        """Return an empty list."""
        return Journals()

    def __reduce__(self) -> tuple[type[Journals], tuple[()]]:
        """Pickle as an empty list."""
        return (Journals, ())


#: The attribute of a model that holds its journals. Journals refer to the model, so a global registry would keep it alive for
#: ever.
_JOURNALS = "_kbitlint_journals"


def keep(model: nn.Module, journal: Journal) -> None:
    """Store a journal on its model, for ``undo``. An empty journal is not stored."""
    if len(journal):
        model.__dict__.setdefault(_JOURNALS, Journals()).append(journal)


def undo_last(model: nn.Module) -> None:
    """Undo the newest fix of this model object."""
    journals = model.__dict__[_JOURNALS]
    journals.pop().rollback()
    if not journals:
        del model.__dict__[_JOURNALS]


def undo(model: nn.Module) -> int:
    """Undo every fix that was applied to this model object, newest first, and return their number."""
    journals = [journal for journal in model.__dict__.pop(_JOURNALS, ()) if len(journal)]
    for journal in reversed(journals):
        journal.rollback()
    return len(journals)


_ABSENT = object()


def set_attribute(owner: Any, name: str, value: Any, journal: Journal) -> None:
    """Set an attribute. A rollback restores it."""
    restore_attribute_on_rollback(owner, name, journal)
    setattr(owner, name, value)


def restore_attribute_on_rollback(owner: Any, name: str, journal: Journal) -> None:
    """Record how to restore an instance attribute or its absence.

    A class default must not become an instance attribute.
    """
    before = owner.__dict__.get(name, _ABSENT)

    def restore() -> None:
        if before is _ABSENT:
            owner.__dict__.pop(name, None)
        else:
            owner.__dict__[name] = before

    journal.record(restore)


def restore_hooks_on_rollback(module: nn.Module, journal: Journal) -> None:
    """Record how to restore every dictionary that a hook registration changes, with its order."""
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
