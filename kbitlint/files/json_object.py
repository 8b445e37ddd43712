"""JSON files that hold one object: configs of checkpoints, of adapters and of DeepSpeed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from kbitlint.errors import TargetError
from kbitlint.runtime import content

if TYPE_CHECKING:
    from pathlib import Path

#: a larger JSON file is no config and is not read
MAX_BYTES = 64 * 1024 * 1024


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object of a file.

    Raises:
        TargetError: If it cannot be read or is no JSON object. The message names the file, the line and the fault.
    """
    try:
        text = content.read_text(path, MAX_BYTES)
    except content.TooLargeError as error:
        raise TargetError(path, f"is larger than {MAX_BYTES // 2**20} MiB; this is no configuration") from error
    except UnicodeDecodeError as error:
        raise TargetError(path, f"is not UTF-8 (byte {error.start})") from error
    except OSError as error:
        raise TargetError(path, f"cannot be read: {error.strerror or error}") from error
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise TargetError(path, f"is not valid JSON: {error.msg} (line {error.lineno}, column {error.colno})") from error
    except (RecursionError, ValueError) as error:  # nested too deeply, or a number with too many digits
        raise TargetError(path, f"is not usable JSON: {error}") from error
    if not isinstance(value, dict):
        raise TargetError(path, f"holds a JSON {type(value).__name__}, not an object")
    return value
