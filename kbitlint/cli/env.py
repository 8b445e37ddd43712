"""``kbitlint env``: the versions of this environment, whether they go together, and what they allow."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from typing import TYPE_CHECKING, Any

from kbitlint.lazy_dataclass import dataclass
from kbitlint.output.wording import Pen, wrapped
from kbitlint.runtime import distributions
from kbitlint.upstream.features import PACKAGES, Devices, features
from kbitlint.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from kbitlint.upstream.features import Feature

_KINDS = {"quantization": "quantization", "strategy": "strategies", "feature": "features"}


@dataclass(frozen=True, slots=True)
class Conflict:
    """A requirement of an installed package that another installed package does not meet."""

    package: str
    requires: str
    installed: str
    """The version of the required package; empty if it is missing."""

    def __str__(self) -> str:
        found = f"{self.installed} is installed" if self.installed else "it is not installed"
        return f"{self.package} requires {self.requires}, and {found}"


@dataclass(frozen=True, slots=True)
class Environment:
    """The versions and devices of this environment."""

    versions: Mapping[str, str]
    conflicts: tuple[Conflict, ...]
    devices: Devices

    def rows(self) -> Iterator[tuple[Feature, tuple[str, ...]]]:
        """Yield each feature, and what it lacks here."""
        for feature in features():
            yield feature, feature.lacks(self.versions, self.devices)

    def as_json(self) -> str:
        """Return the environment as a JSON document."""
        rows = [
            {
                "kind": feature.kind,
                "name": feature.name,
                "works": not lacks,
                "trains": feature.trains,
                "lacks": list(lacks),
                "remark": feature.remark,
                "source": feature.source,
            }
            for feature, lacks in self.rows()
        ]
        conflicts = [
            {"package": one.package, "requires": one.requires, "installed": one.installed or None} for one in self.conflicts
        ]
        document: dict[str, Any] = {"kbitlint": VERSION, "python": platform.python_version(), "versions": dict(self.versions)}
        document |= {"conflicts": conflicts, "devices": list(self.devices.names), "features": rows}
        return json.dumps(document, indent=2)

    def as_text(self, columns: int, *, color: bool) -> str:
        """Return the environment as text."""
        good, bad, faint = (Pen(ansi if color else "") for ansi in ("32", "31", "2"))
        shown = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        lines = wrapped(
            f"kbitlint {VERSION}, Python {platform.python_version()}, {shown or 'no package of a model'}", columns, ""
        )
        lines += wrapped(
            "; ".join(self.devices.names) or "no accelerator: models are audited and fixed on the CPU", columns, ""
        )
        for conflict in self.conflicts:
            lines += wrapped(f"conflict: {conflict}", columns, "  ", bad)
        if not self.conflicts and self.versions:
            lines.append("the versions go together")
        for kind, title in _KINDS.items():
            lines += ["", title]
            for feature, lacks in self.rows():
                if feature.kind == kind:
                    lines += _lines(feature, lacks, columns, (good, bad, faint))
        return "\n".join(lines)


def _lines(feature: Feature, lacks: tuple[str, ...], columns: int, pens: tuple[Pen, Pen, Pen]) -> list[str]:
    good, bad, faint = pens
    words = "no " if lacks else "yes"
    trains = "" if feature.trains else " (no adapter trains on it)"
    head = f"  {(bad if lacks else good)(words)}  {feature.name}{trains}"
    needs = wrapped(f"needs {', '.join(lacks)}", columns, "       ") if lacks else []
    return [head, *needs, *(wrapped(feature.remark, columns, "       ", faint) if feature.remark else [])]


def environment() -> Environment:
    """Return the environment that this interpreter imports from."""
    named = [package for feature in features() for package, _ in feature.needs]
    versions = dict(_versions(dict.fromkeys((*PACKAGES, *named))))
    found = Devices()
    if "torch" in versions:
        from kbitlint.model.devices import devices  # imports torch

        found = devices()
    return Environment(versions, tuple(_conflicts(versions)), found)


def _versions(packages: Iterable[str]) -> Iterator[tuple[str, str]]:
    for package in packages:
        if version := distributions.version(package):
            yield package, version


def _conflicts(versions: Mapping[str, str]) -> Iterator[Conflict]:
    """Yield the requirements that installed packages state and that are not met; extras are not asked for."""
    try:
        from packaging.requirements import Requirement  # torch and transformers bring it; scripts need none of them
    except ModuleNotFoundError:
        return
    for package, version in versions.items():
        for text in importlib.metadata.requires(package) or ():
            wanted = Requirement(text)
            if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
                continue
            installed = dict(_versions([wanted.name])).get(wanted.name, "")
            if not installed or not wanted.specifier.contains(installed, prereleases=True):
                yield Conflict(f"{package} {version}", f"{wanted.name}{wanted.specifier}", installed)
