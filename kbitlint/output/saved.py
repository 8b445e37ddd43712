"""Documents that a result saves as a file or shows in a notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kbitlint.errors import KbitlintError
from kbitlint.files import atomic
from kbitlint.output.formats import NAMES

if TYPE_CHECKING:
    from collections.abc import Container
    from pathlib import Path

#: ends of a file's name -> format
_SUFFIXES = {".html": "html", ".json": "json", ".sarif": "sarif", ".xml": "junit", ".txt": "text"}
#: a page in a notebook: it brings its style, follows the light or dark mode of the browser, and takes the height it needs
_FRAME = (
    '<iframe title="kbitlint" srcdoc="{}" style="width: 100%; height: {}px; border: 0"'
    " onload=\"this.style.height = Math.min(this.contentDocument.documentElement.scrollHeight + 8, 900) + 'px'\"></iframe>"
)


def framed(page: str) -> str:
    """Return a page as the output of a notebook's cell."""
    from html import escape  # only a notebook needs it

    return _FRAME.format(escape(page), 420)


def format_of(path: Path, among: Container[str] = NAMES) -> str:
    """Return the format that the end of a file's name means.

    Raises:
        KbitlintError: It means none of these formats.
    """
    known = {suffix: name for suffix, name in _SUFFIXES.items() if name in among}
    name = known.get(path.suffix.lower())
    if name is None:
        raise KbitlintError(f"{path}: the format follows the end of the name: {', '.join(known)}")
    return name


def write(path: Path, content: str) -> Path:
    """Write a document to a file, and return its path.

    Raises:
        KbitlintError: The file cannot be written.
    """
    try:
        atomic.replace(path, (content + "\n").encode(errors="backslashreplace"))
    except OSError as error:
        raise KbitlintError(f"{path}: cannot be written: {error.strerror or error}") from error
    return path
