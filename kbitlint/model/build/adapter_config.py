"""An ``adapter_config.json`` as an object of PEFT's config class, built from checked keys only."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from kbitlint.errors import TargetError, did_you_mean
from kbitlint.extras import load_peft
from kbitlint.files.config_keys import adapter_values
from kbitlint.files.json_object import read_json

if TYPE_CHECKING:
    from pathlib import Path

FILE = "adapter_config.json"


def peft_config(file: Path) -> Any:
    """Return the PEFT config in a file, as an object of its own class.

    Raises:
        TargetError: The file cannot be read, its PEFT type is not installed, or one of its keys is refused.
        Exception: The values do not fit each other. PEFT's own error passes through.
    """
    values = read_json(file)
    cls = _class_of(file, values)
    return load_peft("an adapter folder").PeftConfig.from_peft_type(**adapter_values(file, values, _defaults(cls)))


def unknown_keys(file: Path) -> tuple[str, ...]:
    """Return the keys of a file that have a value and that the installed PEFT's config class lacks, sorted."""
    values = read_json(file)
    known = {field.name for field in dataclasses.fields(_class_of(file, values))}
    return tuple(sorted(key for key, value in values.items() if key not in known and value not in (None, [], {})))


def _class_of(file: Path, values: dict[str, Any]) -> Any:
    peft = load_peft("an adapter folder")
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING as CLASSES  # an optional dependency

    name = values.get("peft_type")
    known = {str(getattr(kind, "value", kind)): cls for kind, cls in CLASSES.items()}
    if name is not None and name not in known:
        hint = did_you_mean(str(name), known)
        raise TargetError(file, f"peft_type: {name!r} is unknown to the installed PEFT {peft.__version__}{hint}")
    return known.get(str(name), peft.PeftConfig)


def _defaults(cls: Any) -> dict[str, Any]:
    """Return the fields that a config class accepts, with their defaults. None also means a field without default."""
    found: dict[str, Any] = {}
    for one in dataclasses.fields(cls):
        if one.init:
            factory = one.default_factory
            default = None if one.default is dataclasses.MISSING else one.default
            found[one.name] = default if factory is dataclasses.MISSING else factory()
    return found
