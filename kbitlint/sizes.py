"""Numbers as people write and read them: 8GB, 12.9 MB, 1.1B."""

from __future__ import annotations

import re

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?", re.IGNORECASE)


def size(count: int, *, sign: bool = False) -> str:
    """Return a number of bytes as text with a decimal unit: ``1.1 MB``.

    Args:
        count: The number of bytes.
        sign: Whether a positive number starts with ``+``.
    """
    value, unit = float(abs(count)), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    number = f"{value:.0f}" if unit == "B" else f"{value:.1f}"
    return f"{'-' if count < 0 else '+' if sign else ''}{number} {unit}"


def size_of(text: str) -> int:
    """Return the bytes of ``8GB``, ``512MiB`` or ``1000000``.

    Raises:
        ValueError: If the text is no size above zero.
    """
    found = _SIZE.fullmatch(text.strip())
    size = int(float(found[1]) * _UNITS[(found[2] or "").lower()]) if found else 0
    if size <= 0:
        raise ValueError(f"{text!r} is no size; write 8GB, 512MiB or a number of bytes")
    return size


def short_count(number: int) -> str:
    """Return a number in three digits and a unit: ``1.1B``."""
    for limit, unit in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K")):
        if number >= limit:
            return f"{number / limit:.1f}{unit}"
    return str(number)
