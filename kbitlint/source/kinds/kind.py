"""The kind of a value: the class of an object, or one of Python's own kinds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kbitlint.lazy_dataclass import dataclass

if TYPE_CHECKING:
    import ast


@dataclass(frozen=True, slots=True)
class Kind:
    """What a value certainly is. A value of which nothing is known has no ``Kind``, but None."""

    name: str
    """The class of an object, ``transformers.Trainer``; or ``None``, ``tuple``, ``dict``, ``str``, ``api``, ``function``."""
    items: tuple[Kind | None, ...] = ()
    """The items of a tuple."""
    keys: tuple[str, ...] | None = None
    """All keys of a dict; None if they are not known."""
    source: str = ""
    """The function that returned it, or the full name that an ``api`` has."""
    line: int = 0
    """The line of the call that returned it."""
    owner: Kind | None = None
    """The object of a method."""
    node: ast.FunctionDef | None = None
    """The definition of a function of the script."""
    text: str = ""
    """The text that a ``str`` is, or the checkpoint that a model or tokenizer was loaded from; empty if it is not known."""
    marks: tuple[tuple[str, int], ...] = ()
    """What the script gives a tokenizer, with the line: ``pad``, ``no pad``, ``template``, ``grown`` or ``new pad``."""

    def marked(self, mark: str) -> int:
        """Return the line on which the script gives a tokenizer something; 0 if it does not."""
        return next((line for name, line in self.marks if name == mark), 0)


def joined(left: Kind | None, right: Kind | None) -> Kind | None:
    """Return the kind that a value has on both of two paths; None if they differ."""
    if left == right:
        return left
    if left is None or right is None or left.name != right.name or left.items or right.items:
        return None
    if left.name in ("api", "function", "method", "None"):
        return None
    marks = tuple(dict.fromkeys((*left.marks, *right.marks)))
    return Kind(left.name, text=left.text if left.text == right.text else "", marks=marks)
