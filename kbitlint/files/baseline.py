"""The file of a baseline: counts of accepted violations by file, rule and place."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from kbitlint.errors import KbitlintError
from kbitlint.files import atomic
from kbitlint.runtime.content import read_text

if TYPE_CHECKING:
    from pathlib import Path

VERSION = 2
Counts = dict[str, dict[str, dict[str, int]]]
"""file or target -> code -> place -> count.

Files are named from the root of the project. A place is a module path with folded layer numbers, or a name and a digest of
the code on its line, so that lines may move.
"""


def write(path: Path, counts: Counts) -> None:
    """Write a baseline, sorted, so that version control can merge it.

    Raises:
        KbitlintError: If the file cannot be written.
    """
    text = json.dumps({"version": VERSION, "files": counts}, indent=2, sort_keys=True)
    try:
        atomic.replace(path, (text + "\n").encode())
    except OSError as error:
        raise KbitlintError(f"--baseline {path}: cannot be written: {error.strerror or error}") from error


def read(path: Path) -> Counts:
    """Return the counts of a baseline file.

    Raises:
        KbitlintError: If the file cannot be read or is not a baseline. The message names the file, the key and the
            fault.
    """
    try:
        content = json.loads(read_text(path))
    except (OSError, UnicodeDecodeError) as error:
        raise KbitlintError(
            f"--baseline {path}: cannot be read: {getattr(error, 'strerror', None) or error}; --write-baseline makes one"
        ) from error
    except (ValueError, RecursionError) as error:  # a number with too many digits raises ValueError
        raise KbitlintError(f"--baseline {path}: the file is not valid JSON: {error}") from error
    if not isinstance(content, dict) or content.get("version") != VERSION:
        raise KbitlintError(f"--baseline {path}: version: must be {VERSION}; --write-baseline makes the file anew")
    files = _table(path, "files", content.get("files", {}))
    return {
        file: {
            code: {
                place: _count(path, f"files.{file}.{code}.{place}", number)
                for place, number in _table(path, f"files.{file}.{code}", places).items()
            }
            for code, places in _table(path, f"files.{file}", codes).items()
        }
        for file, codes in files.items()
    }


def _table(path: Path, key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise KbitlintError(f"--baseline {path}: {key}: must be an object")
    return value


def _count(path: Path, key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise KbitlintError(f"--baseline {path}: {key}: must be a positive number, not {value!r}")
    return value
