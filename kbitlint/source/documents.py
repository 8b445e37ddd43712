"""Files that can hold a training: Python files, notebooks, training configurations. Reads them, and writes them back."""

from __future__ import annotations

import dataclasses
import io
import itertools
import tokenize
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kbitlint import writing
from kbitlint.errors import TargetError
from kbitlint.limits import current
from kbitlint.source import notebooks, relevance, rewriting
from kbitlint.source.reading import SourceError, collect
from kbitlint.source.versions import versions_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from kbitlint.source.facts import SourceFacts
    from kbitlint.violation import Edit

PYTHON, NOTEBOOK, CONFIGS = (".py",), (".ipynb",), (".yaml", ".yml", ".json")
SUFFIXES = PYTHON + NOTEBOOK + CONFIGS
#: of any file, and so of a notebook, which holds pictures; what is followed may be no larger than the run's limits say
MAX_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Document:
    """A file's text, and its facts."""

    path: Path
    raw: str
    encoding: str
    facts: SourceFacts
    notebook: notebooks.Notebook | None = None


def read(path: Path, name: str | None = None, versions: Mapping[str, str] | None = None) -> Document | None:
    """The document of a file; None where nothing in its bytes concerns the training of a k-bit model.

    Raises TargetError naming the file, the line and what is wrong.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise TargetError(path, f"is larger than {MAX_BYTES // 2**20} MiB; this is no script")
        content = path.read_bytes()
    except OSError as error:
        raise TargetError(path, f"cannot be read: {error.strerror or error}") from error
    return parse(path, content, name, versions)


def worth_parsing(path: Path, content: bytes) -> bool:
    """Whether a file's bytes can say anything about the training of a k-bit model; most of a repository is rejected here."""
    if path.suffix in CONFIGS:
        from kbitlint.source import configs

        return configs.worth_parsing(content)
    return relevance.worth_parsing(content)


def parse(path: Path, content: bytes, name: str | None = None, versions: Mapping[str, str] | None = None) -> Document | None:
    """As ``read``, for bytes."""
    shown = name or str(path)
    if not worth_parsing(path, content):
        return None
    if path.suffix not in NOTEBOOK:
        _must_be_small(path, len(content))
    if path.suffix in CONFIGS:
        from kbitlint.source import configs, trees

        text = _decoded(path, content, "utf-8")
        try:
            facts = configs.collect(shown, text, path.suffix, versions or versions_for(path, text), path.parent)
        except trees.ConfigurationError as error:
            raise TargetError(path, str(error)) from error
        return None if facts is None else Document(path, text, "utf-8", facts)
    if path.suffix in NOTEBOOK:
        return _notebook(path, _decoded(path, content, "utf-8"), shown, versions)
    encoding = _encoding(path, content)
    text = _decoded(path, content, encoding)
    return Document(path, text, encoding, _facts(path, text, shown, versions))


def _must_be_small(path: Path, size: int, what: str = "") -> None:
    most = current().max_file_size
    if size > most:
        raise TargetError(
            path, f"{what}is larger than {most:,} bytes, and is skipped (max-file-size of [tool.kbitlint] sets how many)"
        )


def _facts(path: Path, text: str, shown: str, versions: Mapping[str, str] | None, raw: str = "") -> SourceFacts:
    if "\r" in text.replace("\r\n", "\n"):
        raise TargetError(path, "holds carriage returns that end no line; convert its line ends")
    try:
        return collect(shown, text, versions or versions_for(path, raw or text), path.parent)
    except SourceError as error:
        raise TargetError(path, f"{error}{f' (line {error.line})' if error.line else ''}") from error


def _notebook(path: Path, raw: str, shown: str, versions: Mapping[str, str] | None) -> Document | None:
    try:
        notebook = notebooks.read(raw)
    except notebooks.NotebookError as error:
        raise TargetError(path, str(error)) from error
    if not relevance.worth_parsing(notebook.joined().encode("utf-8", "surrogatepass")):
        return None
    _must_be_small(path, len(notebook.python), "its code ")
    facts = _facts(path, notebook.python, shown, versions, notebook.joined())
    lines = itertools.accumulate((cell.source.count("\n") + 1 for cell in notebook.cells), initial=1)
    starts = tuple((line, cell.number) for line, cell in zip(lines, notebook.cells, strict=False))
    # what is replaced is the cell as it is, magics included; they have the same length
    facts = dataclasses.replace(facts, text=notebook.joined(), cells=starts)
    return Document(path, raw, "utf-8", facts, notebook)


def _encoding(path: Path, content: bytes) -> str:
    try:
        return tokenize.detect_encoding(io.BytesIO(content).readline)[0]
    except SyntaxError as error:
        raise TargetError(path, f"has no usable encoding: {error.msg}") from error


def _decoded(path: Path, content: bytes, encoding: str) -> str:
    try:
        return content.decode(encoding)
    except LookupError as error:  # a codec of bytes, such as zlib
        raise TargetError(path, f"has no usable encoding: {encoding} is none of texts") from error
    except UnicodeDecodeError as error:
        raise TargetError(path, f"is not {encoding} (byte {error.start})") from error


def changed(document: Document, fixes: Iterable[tuple[Edit, ...]]) -> tuple[str, tuple[Edit, ...]]:
    """The file's text after fixes, and the edits that were made. Raises OverlapError."""
    text, done = rewriting.apply(document.facts.text, (_with_line_ends(document, fix) for fix in fixes))
    return (document.notebook.written(done) if document.notebook is not None else text), done


def _with_line_ends(document: Document, fix: tuple[Edit, ...]) -> tuple[Edit, ...]:
    if "\r\n" not in document.facts.text:
        return fix
    return tuple(
        dataclasses.replace(edit, arguments={**edit.arguments, "text": str(edit.arguments["text"]).replace("\n", "\r\n")})
        for edit in fix
    )


def write(path: Path, text: str, encoding: str) -> None:
    """Replace a file's content whole or not at all, with its permissions. Raises TargetError."""
    try:
        writing.replace(path, text.encode(encoding))
    except OSError as error:
        raise TargetError(path, f"cannot be written: {error.strerror or error}") from error
