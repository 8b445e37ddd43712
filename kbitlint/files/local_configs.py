"""Local configs that a script names: those of checkpoints and of DeepSpeed. Nothing is fetched from the network."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbitlint.errors import TargetError
from kbitlint.files.json_object import read_json
from kbitlint.runtime import content
from kbitlint.runtime.observations import remembered

if TYPE_CHECKING:
    from collections.abc import Mapping

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@remembered(256)
def checkpoint_config(name: str, beside: Path) -> Mapping[str, Any] | None:
    """Return config.json of a checkpoint; None if there is none.

    A folder relative to the script or the working folder takes precedence over the main revision in the Hub's local
    cache.
    """
    if not name or "\0" in name:
        return None
    for place in (beside / name, Path(name)):
        found = _json(place / "config.json")
        if found is not None:
            return found
    if _HUB_ID.fullmatch(name) is None:
        return None
    repository = _cache() / f"models--{name.replace('/', '--')}"
    try:
        revision = content.read_text(repository / "refs" / "main").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return _json(repository / "snapshots" / revision / "config.json") if re.fullmatch(r"\w+", revision) else None


@remembered(64)
def adapter_config(name: str, beside: Path) -> Mapping[str, Any] | None:
    """Return adapter_config.json of a folder relative to the script or the working folder; None if there is none."""
    places = (beside / name, Path(name)) if name and "\0" not in name else ()
    return next((found for place in places if (found := _json(place / "adapter_config.json")) is not None), None)


@remembered(256)
def zero_stage(name: str, beside: Path) -> int | None:
    """Return the ZeRO stage of a DeepSpeed configuration; None if the file is missing or does not set it."""
    for found in _deepspeed(name, beside):
        zero = found.get("zero_optimization")
        stage = zero.get("stage") if isinstance(zero, dict) else None
        if isinstance(stage, int):
            return stage
    return None


@remembered(64)
def deepspeed_config(name: str, beside: Path) -> Mapping[str, Any] | None:
    """Return the DeepSpeed configuration that a script names; None if it is not here, or if two folders have one."""
    found = _deepspeed(name, beside)
    return found[0] if found and all(one == found[0] for one in found) else None


def _deepspeed(name: str, beside: Path) -> list[dict[str, Any]]:
    places = (beside / name, Path(name)) if name.endswith(".json") and "\0" not in name else ()
    return [found for place in places if (found := _json(place)) is not None]


def _cache() -> Path:
    home = os.environ.get("HF_HOME") or Path("~/.cache/huggingface").expanduser()
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub")


def _json(path: Path) -> dict[str, Any] | None:
    try:
        return read_json(path) if content.is_file(path) else None
    except (TargetError, OSError, ValueError):
        return None
