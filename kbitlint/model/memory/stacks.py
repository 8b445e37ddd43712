"""Stacks of layers that repeat. A step through three and through four of their blocks tells the bytes of any number.

Let a stack be blocks of like layers. Each moment of a step is inside a layer counted from the front, inside one counted from
the back, or outside the stack. At such a moment the bytes are affine in the number of blocks: each further block adds what it
saves, or the gradients that it has received. The peak of a whole step is then the largest of these moments.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kbitlint.facts.layers import Packing
from kbitlint.lazy_dataclass import dataclass
from kbitlint.model.inspect.walk import named_modules
from kbitlint.model.layers import checkpointing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

#: The blocks at the back that stay. Backward starts there: from the second on, it also holds what the first handed down.
_BACK = 2
#: The blocks that stay in the shortest step: one at the front, the others at the back.
KEPT = 1 + _BACK
#: Fewer layers are run as they are.
_LEAST = 5


@dataclass(frozen=True, slots=True)
class Stack:
    """A list of layers, of which a part repeats."""

    path: str
    layers: nn.ModuleList
    start: int
    """Layers before the part that repeats."""
    period: int
    """Layers of one block."""
    blocks: int

    @property
    def cut(self) -> int:
        """Return how many blocks the shortest step leaves out."""
        return self.blocks - KEPT

    def kept(self, blocks: int) -> list[int]:
        """Return the numbers of the layers that stay if so many blocks stay."""
        front = self.start + (blocks - _BACK) * self.period
        return [*range(front), *range(len(self.layers) - self.back, len(self.layers))]

    @property
    def back(self) -> int:
        """Return how many layers the blocks at the back and what follows them have."""
        return len(self.layers) - self.start - (self.blocks - _BACK) * self.period


def repeated(model: nn.Module) -> tuple[Stack, ...]:
    """Return the stacks of a model whose layers repeat often enough, with their present flags."""
    found = [_stack(path, module) for path, module in named_modules(model) if _is_stack(module)]
    return tuple(stack for stack in found if stack is not None)


def _is_stack(module: nn.Module) -> bool:
    if not isinstance(module, nn.ModuleList) or len(module) < _LEAST:
        return False
    facts = (checkpointing.checkpoint_facts(layer, "") for layer in module)
    return all(fact is not None and fact.is_layer for fact in facts)


def _stack(path: str, layers: nn.ModuleList) -> Stack | None:
    """Return the stack with the part that repeats most; of two that leave out as much, that of the shorter period."""
    marks = [_mark(layer, number) for number, layer in enumerate(layers)]
    best: Stack | None = None
    for period in range(1, len(layers) // (KEPT + 1) + 1):
        start = 0
        for number in range(len(layers) - period + 1):
            if number == len(layers) - period or marks[number] != marks[number + period]:
                blocks = (number - start) // period + 1
                stack = Stack(path, layers, start, period, blocks)
                if blocks > KEPT + 1 and (best is None or stack.cut * period > best.cut * best.period):
                    best = stack
                start = number + 1
    return best


def mark_of(model: nn.Module) -> _Mark:
    """Return what decides the bytes of a step through a model. Two models with equal marks have equal steps."""
    return _mark(model, -1)


_Mark = tuple[Any, ...]


def _mark(layer: nn.Module, number: int) -> _Mark:
    """Return what decides the bytes of a layer: its modules with their settings, tensors, flags and hooks."""
    return tuple((path, type(module), *_settings(module, number), *_tensors(module)) for path, module in named_modules(layer))


def _settings(module: nn.Module, number: int) -> Iterator[Any]:
    own = module.__dict__
    for name, value in own.items():
        if isinstance(value, (bool, float, str, torch.dtype, Packing)) or value is None:
            yield name, value
        elif isinstance(value, int):
            counts = value == number and ("idx" in name or "layer" in name)
            yield name, "its number" if counts else value
    yield "forward" in own
    yield tuple(len(own.get(name, ())) for name in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks"))


def _tensors(module: nn.Module) -> Iterator[Any]:
    for name, tensor in (*module._parameters.items(), *module._buffers.items()):  # noqa: SLF001  # of the module alone
        if isinstance(tensor, Tensor):
            yield name, type(tensor), tuple(tensor.shape), tensor.dtype, tensor.requires_grad


@contextlib.contextmanager
def shortened(model: Any, stacks: Sequence[Stack], blocks: Mapping[str, int]) -> Iterator[None]:
    """Leave out blocks of stacks while a copy of the model is made. Lists in configs with an item for each layer follow.

    Args:
        model: A copy, whose configs are its own.
        stacks: Its stacks.
        blocks: The blocks that stay, by the path of a stack.
    """
    before = [(stack.layers, dict(stack.layers._modules)) for stack in stacks]  # noqa: SLF001  # the only way to leave out children
    lengths = Counter(len(stack.layers) for stack in stacks)
    edited = [edit for stack in stacks if lengths[len(stack.layers)] == 1 for edit in _config_edits(model, stack, blocks)]
    old = [(config, name, vars(config)[name]) for config, name, _ in edited]
    try:
        for stack, (layers, children) in zip(stacks, before, strict=True):
            kept = [children[str(number)] for number in stack.kept(blocks[stack.path])]
            layers._modules = {str(number): layer for number, layer in enumerate(kept)}  # noqa: SLF001  # see above
        for config, name, value in edited:
            vars(config)[name] = value
        yield
    finally:
        for layers, children in before:
            layers._modules = children  # noqa: SLF001  # see above
        for config, name, value in old:
            vars(config)[name] = value


def _config_edits(model: Any, stack: Stack, blocks: Mapping[str, int]) -> Iterator[tuple[Any, str, Any]]:
    """Yield (config, name, value) of the settings that give the number of layers, or a value for each layer."""
    kept, count = stack.kept(blocks[stack.path]), len(stack.layers)
    configs = {id(module.config): module.config for module in model.modules() if hasattr(module, "config")}
    for config in configs.values():
        for name, value in list(vars(config).items()) if hasattr(config, "to_dict") else ():
            if isinstance(value, list) and len(value) == count:
                yield config, name, [value[number] for number in kept]
            elif value == count and type(value) is int and "layers" in name:
                yield config, name, len(kept)


def canonical(moment: str, stacks: Sequence[Stack], blocks: Mapping[str, int]) -> str | None:
    """Return a moment with its layer counted from the front or the back. None for the blocks between, which never decide."""
    for stack in stacks:
        if moment.startswith(f"{stack.path}."):
            number, dot, rest = moment.removeprefix(f"{stack.path}.").partition(".")
            number, comma, passed = number.partition(",")
            if not number.isdecimal():
                return moment
            kept = stack.kept(blocks[stack.path])
            index = int(number)
            if stack.start + stack.period <= index < len(kept) - stack.back:
                return None
            original = index if index < stack.start + stack.period else index - len(kept) + len(stack.layers)
            return f"{stack.path}.{original}{comma}{passed}{dot}{rest}"
    return moment
