"""What an environment allows: quantization methods, strategies and features, with the versions that each needs.

One row of ``features.tsv`` each, with its source. When a library raises a floor, change the row.
"""

from __future__ import annotations

import functools
import re
from importlib.resources import files
from typing import TYPE_CHECKING

from kbitlint.lazy_dataclass import dataclass
from kbitlint.upstream.quantization import method_named
from kbitlint.upstream.versions import number

if TYPE_CHECKING:
    from collections.abc import Mapping

#: packages whose versions are shown, in this order; further ones are those that rows name
PACKAGES = ("torch", "transformers", "peft", "trl", "accelerate", "bitsandbytes", "datasets", "deepspeed")
_NEED = re.compile(r"([A-Za-z0-9_-]+)(?:>=([\d.]+))?")


@dataclass(frozen=True, slots=True)
class Devices:
    """The devices of this machine, as far as they decide what works."""

    names: tuple[str, ...] = ()
    """One for each accelerator: its name and memory. Empty if there is none."""
    cuda: bool = False
    bf16: bool = True
    """Whether the first accelerator computes in bfloat16; True on a CPU."""

    @property
    def count(self) -> int:
        """Return the number of accelerators."""
        return len(self.names)


@dataclass(frozen=True, slots=True)
class Feature:
    """One thing that people ask whether it works."""

    kind: str
    """``quantization``, ``strategy`` or ``feature``."""
    name: str
    method: str
    """The quantization method; empty for other kinds."""
    needs: tuple[tuple[str, str], ...]
    """(package, least version); the version is empty if any will do."""
    device: str
    """``cuda``, ``bf16``, ``gpus`` (several accelerators); empty if any device will do."""
    remark: str
    source: str
    """The file that says so."""

    @property
    def trains(self) -> bool:
        """Return whether a quantized model of this method trains adapters; True for other kinds."""
        return not self.method or method_named(self.method).trains

    def lacks(self, versions: Mapping[str, str], devices: Devices) -> tuple[str, ...]:
        """Return what is missing for it, in words; empty if it works.

        Args:
            versions: Installed versions by package.
            devices: The devices.
        """
        wanted = {"cuda": (devices.cuda, "a CUDA device"), "bf16": (devices.bf16, "a device that computes in bfloat16")}
        missing = tuple(
            f"{package}{f'>={least}' if least else ''}{f' ({versions[package]} is installed)' if package in versions else ''}"
            for package, least in self.needs
            if package not in versions or number(versions[package]) < number(least)
        )
        fits, words = wanted.get(self.device, (devices.count > 1, "several accelerators"))
        return missing if not self.device or fits else (*missing, words)


@functools.cache
def features() -> tuple[Feature, ...]:
    """Return the rows of ``features.tsv``."""
    text = files("kbitlint.upstream").joinpath("features.tsv").read_text(encoding="utf-8")
    rows = (line.split("\t") for line in text.splitlines()[1:])
    return tuple(
        Feature(kind, name, method, tuple(_NEED.findall(needs)), device, remark, source)
        for kind, name, method, needs, device, remark, source in rows
    )
