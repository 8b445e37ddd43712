"""Versions that pip chooses for libraries that a project does not pin, beside those that it pins.

A row holds for the releases of a library between two versions. The bounds are ``Requires-Dist`` of their metadata, which
``pip install --dry-run --no-deps --report - trl==0.12.2`` shows. PEFT and accelerate bound no other library of this table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: library -> "first release, last release, bounds" of each group of releases, the newest first. A release between two groups
#: counts for the older one. Of unsloth, one release of most months was read.
REQUIREMENTS: Mapping[str, tuple[str, ...]] = {
    "unsloth": (
        "2026.10.9 2026.10.9 transformers<=5.17.0 trl<=1.15.0",
        "2026.5.10 2026.9.14 transformers<=5.5.0 trl<=0.24.0",
        "2026.3.1 2026.4.0 transformers<=5.2.0 trl<=0.24.0",
        "2026.1.2 2026.2.1 transformers<=4.57.6 trl<=0.24.0",
        "2025.12.1 2025.12.1 transformers<=4.57.3 trl<=0.24.0",
        "2025.11.1 2025.11.1 transformers<=4.57.2 trl<=0.23.0",
        "2025.10.1 2025.10.1 transformers<=4.56.2 trl<=0.23.0",
        "2025.6.1 2025.9.1",
        "2025.5.1 2025.5.1 transformers<=4.51.3 trl<=0.15.2",
        "2025.4.1 2025.4.1 trl<=0.15.2",
    ),
    "transformers": (
        "5.0.0 5.23.0 huggingface_hub>=1.3.0",
        "4.30.0 4.57.6 huggingface_hub<1.0",
    ),
    "trl": (
        "1.16.0 1.16.0 transformers>=4.56.2 accelerate>=1.10.1 datasets>=4.7.0",
        "1.0.0 1.15.0 transformers>=4.56.2 accelerate>=1.4.0 datasets>=4.7.0",
        "0.27.0 0.29.1 transformers>=4.56.2 accelerate>=1.4.0 datasets>=3.0.0",
        "0.23.0 0.26.2 transformers>=4.56.1 accelerate>=1.4.0 datasets>=3.0.0",
        "0.21.0 0.22.2 transformers>=4.55.0 accelerate>=1.4.0 datasets>=3.0.0",
        "0.20.0 0.20.0 transformers>=4.53.2 accelerate>=1.4.0 datasets>=3.0.0",
        "0.19.0 0.19.1 transformers>=4.51.0 accelerate>=1.4.0 datasets>=3.0.0",
        "0.18.0 0.18.2 transformers>=4.50.0 accelerate>=0.34.0 datasets>=3.0.0",
        "0.16.0 0.17.0 transformers>=4.46.0 accelerate>=0.34.0 datasets>=3.0.0",
        "0.13.0 0.15.2 transformers>=4.46.0 accelerate>=0.34.0 datasets>=2.21.0",
        "0.12.2 0.12.2 transformers<4.47.0 accelerate>=0.34.0 datasets>=2.21.0",
        "0.12.0 0.12.1 transformers>=4.46.0 accelerate>=0.34.0 datasets>=2.21.0",
        "0.11.0 0.11.4 transformers>=4.40.0",
        "0.7.5 0.10.1 transformers>=4.31.0",
        "0.4.0 0.7.4 transformers>=4.18.0",
    ),
}
#: the last release below each upper bound of the table
_BELOW = {("transformers", "4.47.0"): "4.46.3", ("huggingface_hub", "1.0"): "0.36.2"}
_SIGNS = ("<=", ">=", "<")
#: libraries whose version decides verdicts, in the order in which their versions bound one another
_CHOSEN = ("transformers", "trl")


def fitting(pinned: Mapping[str, tuple[int, ...]], floors: Mapping[str, tuple[int, ...]]) -> Iterator[tuple[str, str]]:
    """Yield (library, version) of the newest release of each library that is not pinned and that the pinned ones bound.

    Args:
        pinned: The numbers of each pinned version.
        floors: Those of the lowest version that the project allows, by library.
    """
    limits, have = _limits(pinned), dict(pinned)
    for library in _CHOSEN:
        if library in pinned:
            continue
        fits = next((last for _, last, needs in _rows(library) if _fits(needs, have)), "")
        chosen = min(filter(None, (fits, limits.get(library, ""))), key=_parts, default="")
        if chosen and chosen != _rows(library)[0][1] and _parts(chosen) >= floors.get(library, ()):
            have[library] = _parts(chosen)
            yield library, chosen


def _limits(pinned: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """Return the newest version of other libraries that the pinned releases take."""
    limits: dict[str, str] = {}
    for library, at in pinned.items():
        rows = _rows(library) if library in REQUIREMENTS else []
        for name, sign, bound in next((needs for first, _, needs in rows if _parts(first) <= _padded(at)), []):
            top = _BELOW.get((name, bound), bound)
            if sign != ">=" and (name not in limits or _parts(top) < _parts(limits[name])):
                limits[name] = top
    return limits


def _rows(library: str) -> list[tuple[str, str, list[tuple[str, str, str]]]]:
    """Return (first release, last release, bounds) of each group of releases."""
    rows = (line.split() for line in REQUIREMENTS[library])
    return [(first, last, [_bound(one) for one in needs]) for first, last, *needs in rows]


def _bound(text: str) -> tuple[str, str, str]:
    sign = next(one for one in _SIGNS if one in text)
    name, _, version = text.partition(sign)
    return name, sign, version


def _fits(needs: list[tuple[str, str, str]], have: Mapping[str, tuple[int, ...]]) -> bool:
    """Return whether all bounds hold for the versions that are known."""
    return all(_holds(have[name], sign, _parts(bound)) for name, sign, bound in needs if name in have)


def _holds(have: tuple[int, ...], sign: str, bound: tuple[int, ...]) -> bool:
    at = _padded(have)
    return at >= bound if sign == ">=" else at <= bound if sign == "<=" else at < bound


def _parts(version: str) -> tuple[int, ...]:
    return _padded(tuple(map(int, version.split("."))))


def _padded(parts: tuple[int, ...]) -> tuple[int, ...]:
    """Return three numbers, with which versions of unlike length compare: ``4.46`` is ``4.46.0``."""
    return (*parts, 0, 0, 0)[:3]
