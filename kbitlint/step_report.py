"""The memory of training steps and the answer of ``kbitlint fit``, as results that show and save themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

from kbitlint.fit_result import FitResult
from kbitlint.memory_result import MemoryResult
from kbitlint.output import fit, formats, memory, saved
from kbitlint.sizes import size


class _Document:
    """A result that a notebook shows as a page, and that saves itself in the formats of its command."""

    __slots__ = ()
    _formats: ClassVar[tuple[str, ...]]

    def _rendered(self, name: str) -> str:
        raise NotImplementedError

    def _repr_html_(self) -> str:
        return saved.framed(self.to_html())

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain data; all sizes are bytes."""
        return dict(json.loads(self.to_json()))

    def to_json(self) -> str:
        """Return the result as a JSON document; all sizes are bytes."""
        return self._rendered("json")

    def to_html(self) -> str:
        """Return the result as a page."""
        return self._rendered("html")

    def save(self, file: str | Path) -> Path:
        """Write the result to a file, and return its path.

        Args:
            file: The file. Its suffix decides the format: .html, .json or .txt.

        Raises:
            KbitlintError: The suffix is none of these, or the file cannot be written.
        """
        path = Path(file)
        return saved.write(path, self._rendered(saved.format_of(path, self._formats)))


class MemoryReport(_Document, MemoryResult):
    """The memory of training for several states of one model; ``print`` shows a table, a notebook a page."""

    __slots__ = ()
    _formats = formats.MEMORY

    def _rendered(self, name: str) -> str:
        return formats.render_memory(name, self)

    def __str__(self) -> str:
        """Return the report in the format of ``kbitlint memory``."""
        return memory.render_text(self)

    def __repr__(self) -> str:
        """Return the batch and the least peak of each state, on one line."""
        peaks = {state.name: min(step.peak for step in state.steps.values()) for state in self.states if state.steps}
        named = ", ".join(f"{name} {size(peak)}" for name, peak in peaks.items())
        batch = "your batch" if self.own_batch else "{} x {} tokens".format(*self.batch)
        return f"<MemoryReport {self.target or self.summary}, {batch}: {named or 'not measured'}>"


class FitReport(_Document, FitResult):
    """Whether a run fits its cards; ``print`` shows the answer as text, a notebook as a page."""

    __slots__ = ()
    _formats = formats.FIT

    def _rendered(self, name: str) -> str:
        return formats.render_fit(name, self)

    def __str__(self) -> str:
        """Return the report in the format of ``kbitlint fit``."""
        return fit.render_text(self)
