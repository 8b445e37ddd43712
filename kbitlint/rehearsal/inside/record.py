"""The record of a rehearsal, inside its process: where the script is, what was stood in for, and what is sent."""

from __future__ import annotations

import bisect
import os
import pickle
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from kbitlint.rehearsal.messages import Kind, Note
from kbitlint.result import Skip
from kbitlint.violation import Surface

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from kbitlint.rehearsal.inside.folders import Mirror
    from kbitlint.rehearsal.messages import Request

_LIBRARIES = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


class Record:
    """The record of one rehearsal.

    Args:
        request: What is rehearsed.
        mirror: The mirror in which the script runs.
        pipe: The descriptor that messages are written to.
    """

    def __init__(self, request: Request, mirror: Mirror, pipe: int) -> None:
        self.request, self.mirror = request, mirror
        self._pipe, self._lock, self._sent = pipe, threading.Lock(), set[Any]()
        self.cells: list[tuple[int, int]] = []
        """(first line in the code, number) of each cell of a notebook."""
        self.trainings = 0
        self.synthetic_data = False
        """Whether a data set was made up."""
        self.synthetic_words = False
        """Whether a tokenizer was stood in for."""
        self.guessed = False
        """Whether the script received a result that a real run computes from weights."""
        self.missing: set[str] = set()
        """Paths that the script looked for, and that are not there."""
        self.absent: set[str] = set()
        """Packages that are not installed, for which an empty module stands."""
        self.trainers: list[Any] = []
        """The Trainers whose ``train`` runs."""
        self.paused = False
        """Whether kbitlint's own code runs, which the stand-ins must not answer."""

    def send(self, message: Any) -> None:
        """Send a message."""
        data = pickle.dumps(message)
        with self._lock:
            os.write(self._pipe, len(data).to_bytes(8, "big"))
            view = memoryview(data)
            while view:
                view = view[os.write(self._pipe, view) :]

    def send_to(self, pipe: int) -> None:
        """Send further messages to another descriptor, and close that of the process that forked this one."""
        os.close(self._pipe)
        self._pipe = pipe

    def note(self, text: str, kind: Kind = Kind.OTHER) -> None:
        """Send a note, once."""
        if text not in self._sent:
            self._sent.add(text)
            self.send(Note(text, kind))

    def stand_in(self, text: str) -> None:
        """Send what was stood in for, once."""
        self.note(text, Kind.STOOD_IN)

    def switch_off(self, text: str) -> None:
        """Send what was switched off, once."""
        self.note(text, Kind.OFF)

    def skip(self, reason: str) -> None:
        """Send a skip with the line of the script that asked, once."""
        line = self.line()
        text = f"line {line}: {reason}" if line else reason
        if text not in self._sent:
            self._sent.add(text)
            self.send(Skip("", Surface.REHEARSAL, text))

    def is_users(self, file: str) -> bool:
        """Return whether a file of code is the user's: the script, or a file in the mirror that no package holds."""
        return file.startswith(self.mirror.root) and not any(part in file for part in _LIBRARIES)

    def name_of(self, file: str) -> str:
        """Return a file of the user's as the user names it, relative to the working folder."""
        real = self.mirror.real(file)
        inside = os.path.relpath(real, self.request.working_folder)
        return real if inside.startswith("..") else inside

    def in_cell(self, line: int) -> tuple[str, int]:
        """Return the cell of a line of a notebook and the line in it; no cell and the line itself for other files."""
        index = bisect.bisect_right(self.cells, line, key=lambda cell: cell[0])
        if not index:
            return "", line
        first, number = self.cells[index - 1]
        return f"cell {number}", line - first + 1

    def line(self) -> int:
        """Return the line of the script's main file that runs now; 0 if none does."""
        frame: FrameType | None = sys._getframe(1)  # noqa: SLF001  # the stack says where the script is
        found = 0
        while frame is not None:
            if frame.f_globals.get("__name__") == "__main__" and self.is_users(frame.f_code.co_filename):
                found = found or frame.f_lineno
            frame = frame.f_back
        return found

    def users_frame(self, error: BaseException) -> tuple[str, int, str] | None:
        """Return the file, line and function of the innermost frame of the user's; None if there is none.

        A file that does not compile has no frame. Its error names the line.
        """
        if isinstance(error, SyntaxError) and self.is_users(error.filename or ""):
            return error.filename or "", error.lineno or 1, "<module>"
        found, traceback = None, error.__traceback__
        while traceback is not None:
            code = traceback.tb_frame.f_code
            if self.is_users(code.co_filename):
                found = (code.co_filename, traceback.tb_lineno, code.co_name)
            traceback = traceback.tb_next
        return found

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Let the libraries answer by themselves inside the ``with`` statement."""
        before, self.paused = self.paused, True
        try:
            yield
        finally:
            self.paused = before
