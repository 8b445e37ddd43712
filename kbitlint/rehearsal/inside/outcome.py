"""The end of a script: an exception that a real run has too, a wait for other ranks, or the rest that is not rehearsed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from kbitlint.errors import one_line
from kbitlint.facts.rehearsal import Phase, Raised, Stall
from kbitlint.rehearsal.inside import collectives
from kbitlint.rehearsal.inside.artefacts import demands_path, innermost, missing, only_here
from kbitlint.rehearsal.messages import Exit
from kbitlint.result import Skip
from kbitlint.violation import Surface

if TYPE_CHECKING:
    from types import TracebackType

    from kbitlint.rehearsal.inside.record import Record


def ending(error: BaseException, record: Record) -> Raised | Stall | Skip | Exit | None:
    """Return how the script ended: what it raised, where it waited, why the rest was not rehearsed, or its exit status."""
    place = record.users_frame(error)
    line = place[1] if place else 0
    if isinstance(error, SystemExit):
        status = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
        if status and demands_path(error, record):
            return Skip("", Surface.REHEARSAL, f"line {line}: the script leaves, {missing(record)}")
        return Exit(status, line) if status else None
    meanwhile = collectives.of_other_ranks(error)
    if meanwhile is not None and place is not None:
        cell, line = record.in_cell(line)
        return Stall(int(os.environ.get("RANK", "0")), record.name_of(place[0]), line, meanwhile[0], cell, meanwhile[1])
    why = None if isinstance(error, SyntaxError) else only_here(error, record)  # a file that does not compile has no frame
    if why is not None or place is None:
        file = f"{record.name_of(place[0])}:{line}" if place else record.request.command.script
        return Skip("", Surface.REHEARSAL, f"{file}: not rehearsed from here on, {why or one_line(error)}")
    cell, line = record.in_cell(line)
    return Raised(
        kind=type(error).__name__,
        message=one_line(error).removeprefix(type(error).__name__).removeprefix(": "),
        file=record.name_of(place[0]),
        line=line,
        function=place[2],
        by=_raiser(error.__traceback__),
        phase=Phase.AFTER if record.trainings else Phase.BEFORE,
        cell=cell,
    )


def _raiser(traceback: TracebackType | None) -> str:
    last = innermost(traceback)
    if last is None:
        return ""
    name = getattr(last[1], "co_qualname", last[1].co_name)  # co_qualname is new in Python 3.11
    return name if last[0] == "__main__" else f"{last[0]}.{name}"
