"""TorchScript in a copy without weights: the same program over tensors on the meta device, behind modules that take hooks.

A scripted module refuses hooks and new attributes, and its parameters cannot move to the meta device. So it is written and read
again there. Modules of Python with its names hold its parameters and buffers, and the outermost of them calls the program.
"""

from __future__ import annotations

import io
import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The most bytes of a scripted part that are written and read again.
MAX_BYTES = 2**31
_PROGRAMS: weakref.WeakKeyDictionary[Scripted, Any] = weakref.WeakKeyDictionary()


class Scripted(nn.Module):
    """A module that calls a program of TorchScript and holds its parameters, its buffers and a module for each of its own."""

    def __init__(self, program: Any) -> None:
        super().__init__()
        _PROGRAMS[self] = program
        _fill(self, program)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the program returns."""
        return _PROGRAMS[self](*args, **kwargs)

    def train(self, mode: bool = True) -> Scripted:  # noqa: FBT001, FBT002  # the signature of torch
        """Set the mode of the program too."""
        _PROGRAMS[self].train(mode)
        return super().train(mode)

    def __deepcopy__(self, memo: dict[int, Any]) -> Scripted:
        made = Scripted(_on_meta(_PROGRAMS[self]))
        memo.update(_pairs(self, made))
        return made


def copies_of_scripts(model: nn.Module) -> Iterator[tuple[int, nn.Module]]:
    """Yield (id, copy) of each scripted module of a model, and of the modules below it.

    Raises:
        ValueError: A scripted part is too large to be written and read again.
    """
    seen: set[int] = set()
    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule) and id(module) not in seen:
            seen.update(map(id, module.modules()))
            size = sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))
            if size > MAX_BYTES:
                raise ValueError(f"{path or 'the model'} is TorchScript of {size} bytes, which is too large to be copied")
            yield from _pairs(module, Scripted(_on_meta(module)))


def _on_meta(program: Any) -> Any:
    """Return the same program over tensors on the meta device, with the flags of its parameters and its mode."""
    content = io.BytesIO()
    torch.jit.save(program, content)
    content.seek(0)
    return torch.jit.load(content, map_location="meta")


def _fill(holder: nn.Module, program: Any) -> None:
    """Register the tensors of a program in a module under their names. They are those that the program computes with."""
    holder.training = program.training
    holder._parameters.update(program._parameters.items())  # noqa: SLF001  # register_parameter refuses plain tensors, which these are
    holder._buffers.update(program._buffers.items())  # noqa: SLF001  # as above
    for name, child in program.named_children():
        inner = nn.Module()
        _fill(inner, child)
        holder.add_module(name, inner)


def _pairs(original: nn.Module, made: nn.Module) -> Iterator[tuple[int, nn.Module]]:
    for before, after in zip(original.modules(), made.modules(), strict=True):
        yield id(before), after
