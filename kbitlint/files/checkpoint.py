"""The JSON files of a checkpoint or adapter folder, as facts. No torch, no weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kbitlint.errors import TargetError

#: no config is larger; a larger file is not read
MAX_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class CheckpointFacts:
    """What the JSON files of one folder say."""

    folder: str
    config: Mapping[str, Any] | None = None
    """config.json; None where there is none."""
    adapter: Mapping[str, Any] | None = None
    """adapter_config.json; None where there is none."""

    @property
    def quantization(self) -> Mapping[str, Any] | None:
        """``quantization_config`` of config.json, where it is one."""
        value = (self.config or {}).get("quantization_config")
        return value if isinstance(value, Mapping) else None

    @property
    def dtype(self) -> str | None:
        """The checkpoint's dtype, under the name of transformers 5 or 4."""
        for name in ("dtype", "torch_dtype"):
            value = (self.config or {}).get(name)
            if isinstance(value, str):
                return value.removeprefix("torch.")
        return None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises TargetError naming the file, the line and what is wrong."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise TargetError(path, f"is larger than {MAX_BYTES // 2**20} MiB; this is no configuration")
        text = path.read_bytes().decode("utf-8")
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


def read_checkpoint(folder: Path, only: Path | None = None) -> CheckpointFacts | None:
    """The facts of a folder, or of one of its files.

    None for a file that is JSON but configures neither a model nor an adapter.
    """
    configs = {"config": None, "adapter": None}
    found: dict[str, dict[str, Any] | None] = dict(configs)
    for name, file in (("config", "config.json"), ("adapter", "adapter_config.json")):
        path = folder / file
        if only is not None and only.name != file:
            continue
        if path.is_file():
            found[name] = read_json(path)
    config, adapter = found["config"], found["adapter"]
    if only is not None:
        if only.name not in ("config.json", "adapter_config.json"):
            read_json(only)
            return None
        if (config is None or "model_type" not in config) and (adapter is None or "peft_type" not in adapter):
            return None
    return CheckpointFacts(str(folder), config, adapter)


def base_of_adapter(folder: Path) -> str:
    """The folder or Hub id of the base model that an adapter folder names; a folder beside it is found too.

    Raises TargetError where adapter_config.json cannot be read or names none.
    """
    path = folder / "adapter_config.json"
    name = read_json(path).get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise TargetError(path, "base_model_name_or_path: must name the base model")
    return str(folder / name) if not Path(name).exists() and (folder / name).is_dir() else name
