"""Constants as the language of a call writes them: Python, YAML or JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Union

from kbitlint.facts.values import Style

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kbitlint.facts.values import Call

Literal = Union[bool, int, str, "Mapping[str, bool | int]"]


def literal(call: Call, value: Literal) -> str:
    """Return a value as code in the language of a call."""
    data = call.style in (Style.YAML, Style.JSON)
    if isinstance(value, bool):
        return str(value).lower() if data else str(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return value if call.style is Style.YAML else f'"{value}"'
    items = ", ".join(
        (f"{name}: " if call.style is Style.YAML else f'"{name}": ') + literal(call, item) for name, item in value.items()
    )
    return f"{{{items}}}"


def written(call: Call, name: str, code: str) -> str:
    """Return an argument as the language of a call writes it."""
    if call.style is Style.CALL:
        return f"{name}={code}"
    return f"{name}: {code}" if call.style is Style.YAML else f'"{name}": {code}'
