"""Forms of what a script's functions make of rows: texts, token ids, tensors with one dimension more, dicts of columns."""

from __future__ import annotations

import ast
from dataclasses import field
from typing import TYPE_CHECKING

from kbitlint.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, slots=True)
class Form:
    """What a value certainly is."""

    kind: str = ""
    """``text``, ``number``, ``ids``, ``rows`` (a dict of columns), ``column`` (an item for each row of a batch), ``chunks``
    (a list whose length is not that of the batch), ``count``, ``tuple``, ``none``; empty if unknown."""
    length: str = ""
    """Of ids: ``own`` where each row has its own length, ``fixed`` where all have one; empty if unknown."""
    deep: int = 0
    """The line on which a tensor of ids gets a first dimension of one, by ``return_tensors="pt"`` for one text; 0 without."""
    of: Form | None = None
    """The form of an item of a column, or of what a count counts."""
    columns: Mapping[str, Form] = field(default_factory=dict)
    """The columns of rows, as far as they are known."""
    closed: bool = False
    """Whether rows have no other columns."""
    encoded: bool = False
    """Whether rows are what a tokenizer returns: their ``attention_mask`` and ``input_ids`` are attributes too."""
    shifted: int = 0
    """The line on which ids are taken from the second token on; 0 if they begin with the first."""
    templated: int = 0
    """The line on which a chat template makes a text; 0 if none does."""
    begun: int = 0
    """The line on which a chat template ends a text with the beginning of an answer; 0 if none does."""
    single: bool = False
    """Whether rows are the parameter of a function, whose columns are those of its data set."""


UNKNOWN = Form()
TEXT, NUMBER, NONE = Form("text"), Form("number"), Form("none")


def rows(columns: Mapping[str, Form] | None = None, *, closed: bool = False, encoded: bool = False) -> Form:
    """Return the form of rows."""
    return Form("rows", columns=dict(columns or {}), closed=closed, encoded=encoded)


def column(of: Form) -> Form:
    """Return the form of a list with an item for each row of a batch."""
    return Form("column", of=of)


def joined(forms: Iterable[Form]) -> Form:
    """Return the form that a value has on all of several paths; the columns of rows are those that each path has."""
    found: Form | None = None
    for one in forms:
        found = one if found is None else _both(found, one)
    return found or UNKNOWN


def _both(left: Form, right: Form) -> Form:
    if left == right:
        return left
    if left.kind != right.kind:
        return UNKNOWN
    if left.kind == "rows":
        shared = {name: _both(left.columns[name], right.columns[name]) for name in left.columns if name in right.columns}
        same = left.closed and right.closed and set(left.columns) == set(right.columns)
        return rows(shared, closed=same, encoded=left.encoded and right.encoded)
    if left.kind == "column" and left.of and right.of:
        return column(_both(left.of, right.of))
    if left.kind == "ids":
        length = left.length if left.length == right.length else ""
        return Form("ids", length, left.deep and right.deep)
    return UNKNOWN


def sliced(value: Form) -> Form:
    """Return the form of a part of a value; a part of padded ids may have any length."""
    if value.kind == "ids":
        return Form("ids", "own" if value.length == "own" else "")
    return value if value.kind == "text" else UNKNOWN


def added(left: Form, right: Form) -> Form:
    """Return the form of a sum."""
    kinds = {left.kind, right.kind}
    if "text" in kinds:
        return TEXT
    if kinds == {"number"}:
        return NUMBER
    if kinds == {"ids"}:
        return Form("ids", "own" if left.length == right.length == "own" else "", shifted=left.shifted)
    return UNKNOWN


def without(owner: Form, key: ast.expr | None) -> Form:
    """Return rows without the column that a constant names; rows of which nothing is known for another key."""
    if not isinstance(key, ast.Constant):
        return rows()
    kept = {name: one for name, one in owner.columns.items() if name != key.value}
    return Form("rows", columns=kept, closed=owner.closed, encoded=owner.encoded, single=owner.single)


@dataclass(frozen=True, slots=True)
class RowSet:
    """The rows of a data set."""

    columns: Mapping[str, Form]
    """The columns that it certainly has."""
    opens: frozenset[int] = frozenset()
    """The sources of further columns; without one there are no others."""
    transform: Form | None = None
    """What a function makes of the stored columns whenever a row is read."""
    needs: frozenset[str] = frozenset()
    """The stored columns that this function reads."""
    sized: bool = True
    """Whether it has a length."""
    tensors: bool = False
    """Whether a format makes tensors of the columns."""
    item: str = ""
    """The kind of a row that is no dict: ``tuple``."""
    stored: RowSet | None = None
    """All rows as they are stored, where a format shows some of their columns; None where it shows all."""

    @property
    def whole(self) -> RowSet:
        """Return the rows with the columns that a format hides; methods that name columns look there."""
        return self.stored or self

    def viewed(self, whole: RowSet, names: Mapping[str, str] | None = None, made: Iterable[str] = ()) -> RowSet:
        """Return other stored rows under the format of these ones, which stays (``transmit_format`` of datasets).

        Args:
            whole: The stored rows.
            names: Former name -> new name of each column that was renamed.
            made: The new columns, which the format shows.
        """
        if self.stored is None:
            return whole
        shown = {(names or {}).get(name, name) for name in self.columns} | set(made)
        columns = {name: one for name, one in whole.columns.items() if name in shown}
        return RowSet(columns, tensors=self.tensors, stored=whole)


def item(value: Form, *, many: bool) -> Form:
    """Return the form of a column in one row."""
    if not many:
        return value
    return value.of if value.kind == "column" and value.of is not None else UNKNOWN


def less(owner: RowSet, names: frozenset[str], opens: frozenset[int]) -> RowSet:
    """Return rows without some columns, and without all columns from some sources."""
    return RowSet({name: one for name, one in owner.columns.items() if name not in names}, owner.opens - opens)
