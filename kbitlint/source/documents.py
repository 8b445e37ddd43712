"""Files that can contain a training: Python files, notebooks, training configurations.

This file reads and writes them. ``python.py``, ``notebooks.py`` and ``configs/`` collect their facts.
"""

from __future__ import annotations

import codecs
import dataclasses
import io
import itertools
import tokenize
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kbitlint.errors import TargetError
from kbitlint.files import atomic
from kbitlint.lazy_dataclass import dataclass
from kbitlint.limits import current
from kbitlint.runtime import content
from kbitlint.source import edits as source_edits
from kbitlint.source.interpreter import imported_files, relevance
from kbitlint.source.line_ends import LineEnds, unified
from kbitlint.source.python import SourceError, collect
from kbitlint.source.soundness import fault_of, strays
from kbitlint.target import SHELLS
from kbitlint.upstream.versions import versions_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from kbitlint.facts.source import SourceFacts
    from kbitlint.source.notebooks import Notebook
    from kbitlint.violation import Edit

PYTHON, NOTEBOOK, CONFIGS = (".py",), (".ipynb",), (".yaml", ".yml", ".json", *SHELLS)
#: The limit in bytes for every file; notebooks are large because they contain pictures. Code has the smaller limits of
#: ``limits.py``.
MAX_BYTES = 64 * 1024 * 1024
#: what a script contains that loads adapters which another one may have trained
ADAPTER_LOADS = ("PeftModel.from_pretrained(", ".load_adapter(")
#: how a UTF-16 text begins, as ``>`` of Windows PowerShell writes it
_WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True, slots=True)
class Document:
    """The text of a file, and its facts."""

    path: Path
    raw: str
    """The text with the file's own line ends; those of ``facts.text`` are all ``\\n``."""
    encoding: str
    facts: SourceFacts
    notebook: Notebook | None = None
    masked: str = ""
    """The Python text of an export with magics among its lines; empty for other files."""


def read(path: Path, name: str | None = None, versions: Mapping[str, str] | None = None) -> Document | None:
    """Return the document of a file; None if none of its bytes concern the training of a k-bit model.

    Args:
        path: The file.
        name: The name that reports print; None means the path.
        versions: The versions of the libraries whose behaviour is modelled. None means those that the script or its project
            pins, or else the installed ones.

    Raises:
        TargetError: The file is unreadable, invalid or too large; the message names the file, the line and the reason.
    """
    try:
        data = content.read(path, MAX_BYTES)
    except content.TooLargeError as error:
        raise TargetError(path, f"is larger than {MAX_BYTES // 2**20} MiB; this is no script") from error
    except OSError as error:
        raise TargetError(path, f"cannot be read: {error.strerror or error}") from error
    return parse(path, data, name, versions)


def of(path: Path, name: str, data: bytes | None) -> Document | None:
    """Return the document of a file, or of the text that takes its place; see ``read``."""
    return read(path, name) if data is None else parse(path, data, name)


def worth_parsing(path: Path, data: bytes) -> bool:
    """Return whether a file's bytes can concern the training of a k-bit model; this rejects most files of a repository."""
    if data.startswith(_WIDE):
        data = data.decode("utf-16", "replace").encode("utf-8", "replace")
    if path.suffix in CONFIGS:
        from kbitlint.source.configs import collect as configs  # a script needs none of it

        return configs.worth_parsing(data, path.suffix)
    return relevance.worth_parsing(data) or (path.suffix in PYTHON and imported_files.brings_models(path.parent, data))


def parse(path: Path, data: bytes, name: str | None = None, versions: Mapping[str, str] | None = None) -> Document | None:
    """Return the document of a file from its bytes; see ``read``."""
    shown = name or str(path)
    if not worth_parsing(path, data):
        return None
    if data.startswith(_WIDE):
        raise TargetError(path, "is UTF-16, which Python does not read: save it as UTF-8")
    if path.suffix not in NOTEBOOK:
        _must_be_small(path, len(data))
    if path.suffix in CONFIGS:
        return _configuration(path, data, shown, versions)
    if path.suffix in NOTEBOOK:
        encoding = _utf8(data)
        return _notebook(path, _decoded(path, data, encoding), encoding, shown, versions)
    encoding = _encoding(path, data)
    raw = _decoded(path, data, encoding)
    text = unified(raw)
    try:
        return Document(path, raw, encoding, _facts(path, text, shown, versions))
    except InvalidPythonError:
        found = _exported(text)
        if found is None:
            raise
        masked, left = found
        facts = _facts(path, masked, shown, versions, text)
        facts = dataclasses.replace(facts, text=text + facts.text[len(masked) :], unfollowed=facts.unfollowed or left)
        return Document(path, raw, encoding, facts, masked=masked)


def _configuration(path: Path, data: bytes, shown: str, versions: Mapping[str, str] | None) -> Document | None:
    from kbitlint.source.configs.collect import collect as collect_configuration  # as above
    from kbitlint.source.configs.tree import ConfigurationError  # as above

    encoding = _utf8(data)
    raw = _decoded(path, data, encoding)
    text = unified(raw)
    try:
        facts = collect_configuration(shown, text, path.suffix, versions or versions_for(path, text), path.parent)
    except ConfigurationError as error:
        raise TargetError(path, str(error)) from error
    return None if facts is None else Document(path, raw, encoding, facts)


class InvalidPythonError(TargetError):
    """A file that is no Python."""


def _exported(text: str) -> tuple[str, str] | None:
    from kbitlint.source import exports  # only a file that is no Python needs it

    return exports.parsable(text)


def _utf8(data: bytes) -> str:
    """Return the encoding of a JSON or YAML file.

    ``utf-8-sig`` removes a byte order mark, which each parser counts differently.
    """
    return "utf-8-sig" if data.startswith(codecs.BOM_UTF8) else "utf-8"


def _must_be_small(path: Path, size: int, what: str = "") -> None:
    most = current().max_file_size
    if size > most:
        raise TargetError(
            path, f"{what}is larger than {most:,} bytes, and is skipped (max-file-size of [tool.kbitlint] sets how many)"
        )


def _facts(path: Path, text: str, shown: str, versions: Mapping[str, str] | None, raw: str = "") -> SourceFacts:
    versions = versions or versions_for(path, raw or text)
    try:
        facts = collect(shown, text, versions, path.parent)
    except SourceError as error:
        kind = InvalidPythonError if error.line else TargetError
        raise kind(path, f"{error}{f' (line {error.line})' if error.line else ''}") from error
    if path.suffix not in PYTHON or not any(one in text for one in ADAPTER_LOADS):
        return facts
    from kbitlint.source.neighbours import neighbours  # most scripts load no adapters

    return dataclasses.replace(facts, neighbours=tuple(neighbours(path, text, versions)))


def _notebook(path: Path, raw: str, encoding: str, shown: str, versions: Mapping[str, str] | None) -> Document | None:
    from kbitlint.source import notebooks  # as above

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
    # edits replace text of the original cells, magics included; both texts have the same length
    imported = facts.text[len(notebook.python) :]
    facts = dataclasses.replace(facts, text=notebook.joined() + imported, cells=starts, notes=notebook.notes)
    return Document(path, raw, encoding, facts, notebook)


def _encoding(path: Path, data: bytes) -> str:
    try:
        return tokenize.detect_encoding(io.BytesIO(data).readline)[0]
    except SyntaxError as error:
        raise TargetError(path, f"has no usable encoding: {error.msg}") from error


def _decoded(path: Path, data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except LookupError as error:  # a codec from bytes to bytes, such as zlib
        raise TargetError(path, f"has no usable encoding: {encoding} is none of texts") from error
    except UnicodeDecodeError as error:
        raise TargetError(path, f"is not {encoding} (byte {error.start})") from error
    except UnicodeError as error:  # of codecs that name no byte: idna, punycode, undefined
        raise TargetError(path, f"is not {encoding}") from error


def changed(document: Document, fixes: Iterable[tuple[Edit, ...]]) -> tuple[str, tuple[Edit, ...]]:
    """Return the text of a file after fixes, and the edits that were applied.

    Raises:
        OverlapError: An edit was planned for another text, or spans two cells of a notebook.
    """
    apart = [(call.span.start, call.span.end) for call in document.facts.calls]
    done = source_edits.chosen(document.facts.text, fixes, apart)
    return (document.notebook or LineEnds.of(document.raw)).written(done), done


def unsound(before: Document, after: Document, edits: Iterable[Edit]) -> str:
    """Return why the result of edits is unsound; empty if it is sound.

    A Python text or notebook must compile after its edits, and statements outside the edits must be unchanged. Cells that
    did not compile before the edits are ignored. A training configuration is not checked here.
    """
    if before.path.suffix in CONFIGS:
        return ""
    known = {} if before.notebook is None else faults(before)
    for cell, fault in faults(after).items():
        if cell not in known:
            return f"does not compile ({f'cell {cell}: ' if cell else ''}{fault})"
    line = strays(_python(before), _python(after), edits)
    return f"has another statement changed ({line})" if line else ""


def faults(document: Document) -> dict[int, str]:
    """Return the compile errors of a document: by cell number for a notebook, under 0 for a script."""
    if document.path.suffix in CONFIGS:
        return {}
    if document.notebook is not None:
        return document.notebook.faults()
    fault = fault_of(_python(document))
    return {0: fault} if fault else {}


def _python(document: Document) -> str:
    return document.masked or document.facts.own_text if document.notebook is None else document.notebook.python


def must_be_writable(path: Path) -> None:
    """Raise an error if ``write`` would refuse a file.

    Raises:
        TargetError: The file cannot be replaced.
    """
    with _clear(path):
        atomic.must_be_replaceable(path)


def write(path: Path, text: str, encoding: str) -> None:
    """Replace the content of a file in an atomic write that keeps its other properties.

    Raises:
        TargetError: The file cannot be written.
    """
    with _clear(path):
        atomic.replace(path, text.encode(encoding))


@contextmanager
def _clear(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TargetError(path, f"cannot be written: {error.strerror or error}") from error
