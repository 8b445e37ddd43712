"""``kbitlint.json``: the edits that prepare a checkpoint, stored next to its config.json.

Runtime state is not part of a checkpoint: a frozen parameter, a hook, a bound checkpoint function, a float32 norm.
This file stores the edits of a fix. They are applied again at every audit or loading of the folder.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from kbitlint.errors import TargetError
from kbitlint.files import atomic
from kbitlint.files.json_object import read_json
from kbitlint.lazy_dataclass import dataclass
from kbitlint.upstream.quantization import QUANTIZATIONS
from kbitlint.version import VERSION
from kbitlint.violation import Edit

if TYPE_CHECKING:
    from pathlib import Path

NAME = "kbitlint.json"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Manifest:
    """The preparation of a checkpoint."""

    edits: tuple[Edit, ...]
    quantize: str | None = None
    """The quantization of an unquantized checkpoint on load; None if its own config sets it."""


def read(folder: Path) -> Manifest | None:
    """Return the preparation stored in a folder; None if there is none.

    Raises:
        TargetError: If kbitlint cannot have written the file. The message names the file and the key.
    """
    return read_file(folder / NAME)


def read_file(path: Path) -> Manifest | None:
    """Return the preparation stored in a file; None if there is no such file.

    Raises:
        TargetError: As for ``read``.
    """
    if not path.is_file():
        return None
    content = read_json(path)
    if content.get("format") != FORMAT:
        raise TargetError(path, f"format: {content.get('format')!r} is not {FORMAT}, the one that kbitlint {VERSION} reads")
    edits = content.get("edits")
    if not isinstance(edits, list):
        raise TargetError(path, "edits: must be a list")
    quantize = content.get("quantize")
    if quantize is not None and quantize not in QUANTIZATIONS:
        raise TargetError(path, f"quantize: {quantize!r} is none of {', '.join(QUANTIZATIONS)}")
    return Manifest(tuple(_edit(path, index, edit) for index, edit in enumerate(edits)), quantize)


def _edit(path: Path, index: int, value: Any) -> Edit:
    key = f"edits[{index}]"
    if not isinstance(value, dict):
        raise TargetError(path, f"{key}: must be an object")
    kind, place, arguments = value.get("kind"), value.get("path", ""), value.get("arguments", {})
    if not isinstance(kind, str) or not kind:
        raise TargetError(path, f"{key}.kind: must name a kind of edit")
    if not isinstance(place, str):
        raise TargetError(path, f"{key}.path: must be a module path")
    if not isinstance(arguments, dict):
        raise TargetError(path, f"{key}.arguments: must be an object")
    return Edit(kind, place, arguments)


def must_be_writable(path: Path) -> None:
    """Raise TargetError if ``write`` would reject the file. Check this before any other file is written."""
    try:
        atomic.must_be_replaceable(path, follow=False)
    except OSError as error:
        raise TargetError(path, f"cannot be written: {error.strerror or error}") from error


def write(path: Path, manifest: Manifest, versions: dict[str, str]) -> Path:
    """Write a preparation with an atomic write, and return the path.

    A symbolic link at the path is replaced and not followed, so a checkpoint cannot redirect the write.

    Raises:
        TargetError: If the file cannot be written.
    """
    content = {
        "format": FORMAT,
        "written_by": {"kbitlint": VERSION, **dict(sorted(versions.items()))},
        **({"quantize": manifest.quantize} if manifest.quantize not in (None, "none") else {}),
        "edits": [
            {"kind": edit.kind, "path": edit.path, **({"arguments": dict(edit.arguments)} if edit.arguments else {})}
            for edit in manifest.edits
        ],
    }
    text = json.dumps(content, indent=1) + "\n"
    try:
        atomic.replace(path, text.encode(), follow=False)
    except OSError as error:
        raise TargetError(path, f"cannot be written: {error.strerror or error}") from error
    return path
