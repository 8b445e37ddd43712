"""The tree of a model's modules, as data: what a page shows of each; ``kbitlint.model.outline`` collects it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModuleOutline:
    """One module that holds parameters, itself or below it. What it counts is its own, without that of its children."""

    path: str
    """As in reports; empty for the model itself."""
    class_name: str
    shape: tuple[int, ...] = ()
    """Of its weight; before packing where it is packed."""
    numel: int = 0
    """Elements of its parameters, before packing."""
    trainable: int = 0
    """Elements of those that require grad."""
    stored: tuple[tuple[str, int], ...] = ()
    """(how its parameters are stored, bytes): a dtype, or for a packed weight the method's own name: nf4, int8."""
    checkpoints: str = ""
    """How it checkpoints its activations: ``no``, ``reentrant``, ``without reentry``, ``unknown``; empty where it cannot."""
    adapter: bool = False
    """Whether an adapter added it."""
    norm: bool = False
