"""A merged checkpoint, compared with its base and its adapter: headers first, then rows of the adapted weights.

A few rows of each weight are read, with the rows of ``lora_B`` that belong to them and the whole of ``lora_A``.
torch is not needed.
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any

from kbitlint.errors import TargetError
from kbitlint.facts.merged import LayerComparison, MergeComparison, Verdict
from kbitlint.files.checkpoint import read_checkpoint
from kbitlint.lazy_dataclass import dataclass
from kbitlint.runtime.content import opened

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from kbitlint.facts.checkpoint import CheckpointFacts, Tensor

#: rows of each weight that are read, spread over its height
ROWS = 8
#: elements of a row, and bytes of one ``lora_A``, that are read at most
_MOST_COLUMNS = 2048
_MOST_BYTES = 64 * 1024 * 1024
#: weights without an adapter that are compared with the base
_MOST_PLAIN = 400
_PREFIX = "base_model.model."
#: largest error of rounding to a dtype, relative to the number
_ROUNDING = {"F16": 2**-11, "BF16": 2**-8, "F32": 2**-23, "F64": 2**-52}
#: values in a block of 4-bit packing, and how many different ones it can hold
_BLOCK, _LEVELS = 64, 16
#: with a larger error of the share, 0 and 1 are not distinct
_UNCLEAR = 0.4
#: rounding to 4 bits moves weights by a tenth of their size; more than this is no rounding
_WORST = 0.3


@dataclass(frozen=True, slots=True)
class _Lora:
    """The tensors of one adapted layer and the factor of its product."""

    left: Tensor
    right: Tensor
    scaling: float


def compare(merged: Path, base: Path, adapter: Path) -> MergeComparison:
    """Return how a merged folder differs from its base plus the adapter.

    Raises:
        TargetError: A folder has no weights in safetensors, or is no adapter of LoRA.
    """
    folders = {folder: _weights_of(folder) for folder in (merged, base)}
    delta = read_checkpoint(adapter)
    if delta is None or delta.adapter is None or not delta.adapter_tensors:
        raise TargetError(adapter, "holds no adapter: adapter_config.json and adapter_model.safetensors are needed")
    if str(delta.adapter.get("peft_type")) != "LORA":
        raise TargetError(adapter, f"is an adapter of {delta.adapter.get('peft_type')}; only LoRA can be compared")
    reader = _Reader(merged, folders[merged], base, folders[base], adapter)
    own, known = folders[merged].tensors, folders[base].tensors
    layers = dict(_adapted(delta, known))
    stored = {name.removeprefix(_PREFIX) for name in delta.adapter_tensors}  # trained copies of whole modules
    return MergeComparison(
        missing=tuple(name for name in known if name not in own and not _is_state(name)),
        reshaped=tuple(
            name for name in own if name in known and own[name].shape != known[name].shape and not _packed(known, name)
        ),
        packed="quantization_config" in (folders[merged].config or {}) or bool(folders[merged].packing.packed),
        layers=tuple(reader.layer(name, lora) for name, lora in layers.items()),
        changed=tuple(reader.changed(name for name in known if name not in layers and name not in stored)),
    )


def _weights_of(folder: Path) -> CheckpointFacts:
    facts = read_checkpoint(folder)
    if facts is None or not facts.tensors:
        raise TargetError(folder, "holds no weights in safetensors")
    return facts


def _is_state(name: str) -> bool:
    return "quant_state" in name or name.endswith((".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map", ".SCB"))


def _packed(tensors: Mapping[str, Tensor], name: str) -> bool:
    return tensors[name].dtype in ("U8", "I8")


def _adapted(adapter: CheckpointFacts, base: Mapping[str, Tensor]) -> Iterator[tuple[str, _Lora | None]]:
    """Yield (name of the weight in the base, its LoRA). None stands for an adapter whose product is not a plain one."""
    config, tensors = adapter.adapter or {}, adapter.adapter_tensors
    for name, left in tensors.items():
        module, part, rest = name.removeprefix(_PREFIX).partition(".lora_A.")
        if not part or rest != "weight":
            continue
        right = tensors.get(name.replace(".lora_A.", ".lora_B."))
        weight = _named(f"{module}.weight", base)
        if weight is None:
            continue
        plain = right is not None and len(left.shape) == len(right.shape) == 2 and not _unusual(config)  # matrices
        yield weight, _Lora(left, right, scaling_of(config, module, left.shape[0])) if plain and right is not None else None


def _named(name: str, base: Mapping[str, Tensor]) -> str | None:
    """Return the name of a weight in the checkpoint: a class may have loaded it under a shorter or a longer one."""
    if name in base:
        return name
    alike = [known for known in base if known.endswith(f".{name}") or name.endswith(f".{known}")]
    return alike[0] if len(alike) == 1 else None


def _unusual(config: Mapping[str, Any]) -> bool:
    return any(config.get(key) for key in ("use_dora", "fan_in_fan_out", "use_bdlora", "alora_invocation_tokens"))


def scaling_of(config: Mapping[str, Any], module: str, rank: int) -> float:
    """Return the factor of a LoRA's product, as ``LoraLayer.update_layer`` of PEFT computes it."""
    alpha = _by_pattern(config.get("alpha_pattern"), module, config.get("lora_alpha", 8))
    alpha = float(alpha) if isinstance(alpha, (int, float)) else 8.0
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _by_pattern(patterns: object, module: str, usual: Any) -> Any:
    import re  # a pattern is rare

    for pattern, value in patterns.items() if isinstance(patterns, dict) else ():
        if len(pattern) < 200 and re.fullmatch(rf"(.*\.)?({re.escape(pattern)})", module):  # longer names are no patterns
            return value
    return usual


class _Reader:
    """Rows of the tensors of three folders."""

    def __init__(self, merged: Path, own: CheckpointFacts, base: Path, known: CheckpointFacts, adapter: Path) -> None:
        self._merged, self._base, self._adapter = merged, base, adapter / "adapter_model.safetensors"
        self._own, self._known = own.tensors, known.tensors

    def layer(self, name: str, lora: _Lora | None) -> LayerComparison:
        """Return how the rows of one adapted weight differ from those of the base plus the adapter."""
        own, known = self._own.get(name), self._known[name]
        if own is None or lora is None or own.dtype not in _ROUNDING or known.dtype not in _ROUNDING:
            return LayerComparison(name, Verdict.UNKNOWN)
        if own.shape != known.shape or own.shape != (lora.right.shape[0], lora.left.shape[1]) or lora.left.nbytes > _MOST_BYTES:
            return LayerComparison(name, Verdict.UNKNOWN)
        width = min(own.shape[1], _MOST_COLUMNS)
        down = [row_of(self._adapter, lora.left, row, width) for row in range(lora.left.shape[0])]
        sums = _Sums(_ROUNDING[own.dtype])
        on_grid = True
        for row in _spread(own.shape[0]):
            here, there = row_of(self._merged / own.file, own, row, width), row_of(self._base / known.file, known, row, width)
            up = row_of(self._adapter, lora.right, row, lora.right.shape[1])
            added = [lora.scaling * sum(a * b for a, b in zip(up, column, strict=True)) for column in zip(*down, strict=True)]
            sums.add(here, there, added)
            on_grid = on_grid and is_on_grid(here)
        return LayerComparison(name, sums.verdict(), sums.share(), sums.residual(), on_grid=on_grid)

    def changed(self, names: Iterator[str]) -> Iterator[str]:
        """Yield the weights without an adapter whose values are not those of the base."""
        for count, name in enumerate(names):
            own, known = self._own.get(name), self._known[name]
            if count >= _MOST_PLAIN or own is None or own.shape != known.shape or len(own.shape) > 2:  # matrices
                continue
            if own.dtype not in _ROUNDING or known.dtype not in _ROUNDING or not own.numel:
                continue
            shape = own.shape if len(own.shape) == 2 else (1, own.numel)  # a vector is one row
            width, rounding = min(shape[1], _MOST_COLUMNS), _ROUNDING[own.dtype] + _ROUNDING[known.dtype]
            for row in _spread(shape[0]):
                here, there = (
                    row_of(self._merged / own.file, own, row, width),
                    row_of(self._base / known.file, known, row, width),
                )
                if any(
                    abs(one - other) > 2 * rounding * max(abs(other), 1e-30) for one, other in zip(here, there, strict=True)
                ):
                    yield name
                    break


class _Sums:
    """Sums of squares over the rows of one weight, from which its verdict follows."""

    def __init__(self, rounding: float) -> None:
        self._rounding = rounding
        self._base = self._delta = self._along = self._moved = self._left = self._twice = 0.0
        self._count = 0

    def add(self, here: Sequence[float], there: Sequence[float], added: Sequence[float]) -> None:
        self._count += len(here)
        for own, base, delta in zip(here, there, added, strict=True):
            difference = own - base
            self._base += base * base
            self._delta += delta * delta
            self._along += difference * delta
            self._moved += difference * difference
            self._left += (difference - delta) ** 2
            self._twice += (difference - 2 * delta) ** 2

    def share(self) -> float | None:
        """Return how much of the adapter is in the weight: 1 for all of it, 0 for nothing. None if it adds nothing."""
        return self._along / self._delta if self._delta else None

    def residual(self) -> float:
        """Return the difference to base plus adapter, relative to the base."""
        return math.sqrt(self._left / self._base) if self._base else 0.0

    def verdict(self) -> Verdict:
        """Return the verdict. An adapter that is smaller than the rounding of the weight cannot be seen in it."""
        noise = self._rounding * math.sqrt(self._base)
        if math.sqrt(self._delta) < noise:
            return Verdict.TOO_SMALL
        if not self._moved:
            return Verdict.ABSENT
        if math.sqrt(self._left) <= 2 * noise:
            return Verdict.MERGED
        if math.sqrt(self._twice) <= 2 * noise:
            return Verdict.TWICE
        share = self.share() or 0.0
        # the rounding of a packed base is independent of the adapter: three standard errors of the share
        error = max(3 * math.sqrt(self._left / self._delta / self._count), 0.05)
        if self.residual() > _WORST:
            return Verdict.OTHER
        if error > _UNCLEAR:
            return Verdict.UNKNOWN
        if abs(share - 1) <= error:
            return Verdict.ROUNDED
        return Verdict.ABSENT if abs(share) <= error else Verdict.OTHER


def _spread(height: int) -> list[int]:
    return sorted({round(index * (height - 1) / max(ROWS - 1, 1)) for index in range(ROWS)}) if height else []


def is_on_grid(row: Sequence[float]) -> bool:
    """Return whether each block of a row holds few enough values to have come out of 4-bit packing."""
    blocks = [row[start : start + _BLOCK] for start in range(0, len(row) - _BLOCK + 1, _BLOCK)]
    return len(set(row)) > 1 and bool(blocks) and all(len(set(block)) <= _LEVELS for block in blocks)


def row_of(path: Path, tensor: Tensor, row: int, width: int) -> list[float]:
    """Return the first values of a row of a matrix, or of a vector as its row 0.

    Raises:
        TargetError: The file cannot be read.
    """
    size = {"F16": 2, "BF16": 2, "F32": 4, "F64": 8}[tensor.dtype]
    length = tensor.shape[-1] if len(tensor.shape) > 1 else tensor.numel
    try:
        with opened(path) as file:
            file.seek(tensor.start + row * length * size)
            data = file.read(width * size)
    except OSError as error:
        raise TargetError(path, f"cannot be read: {error.strerror or error}") from error
    if tensor.dtype == "BF16":
        words = struct.unpack(f"<{len(data) // 2}H", data)
        return list(struct.unpack(f"<{len(words)}f", struct.pack(f"<{len(words)}I", *(word << 16 for word in words))))
    return list(struct.unpack(f"<{len(data) // size}{({2: 'e', 4: 'f', 8: 'd'})[size]}", data))
