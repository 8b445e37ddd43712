"""What a training loop does around the forward pass of a traced step: checkpointing, autocast and the backward pass."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch

from kbitlint.model.layers import adapters, checkpointing
from kbitlint.model.trace.function_mode import autocast_region

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kbitlint.context import Checkpointing


def enable_checkpointing(twin: nn.Module, loop: Checkpointing) -> None:
    """Enable checkpointing as the training loop does before its first step.

    transformers 5 registers hooks on the embeddings in this call, and transformers 4 registers none. The context decides
    whether such hooks exist, so missing ones are added and surplus ones are removed.
    """
    before = {module: set(module._forward_hooks) for module in twin.modules()}  # noqa: SLF001  # torch has no public way to list hooks
    kwargs = {} if loop.use_reentrant is None else {"use_reentrant": loop.use_reentrant}
    base: Any = adapters.base_of(twin)
    checkpointing.enable(base, **kwargs)
    added = {module: set(module._forward_hooks) - known for module, known in before.items()}  # noqa: SLF001  # see above
    if loop.installs_hook and not any(added.values()):
        base.enable_input_require_grads()
    for module, numbers in added.items() if not loop.installs_hook else ():
        for number in numbers:
            del module._forward_hooks[number]  # noqa: SLF001  # as RemovableHandle.remove does


def autocast(device: str, dtype: str | None) -> contextlib.AbstractContextManager[Any]:
    """Return the autocast region of a loop, which is none if the dtype is None or ``float32``."""
    if dtype in (None, "float32"):
        return contextlib.nullcontext()
    return autocast_region(device, getattr(torch, str(dtype)))


def backward(loss: Tensor) -> None:
    """Run the backward pass outside the autocast region, as training loops do.

    The pass starts at the gradient edge of the loss, not at the loss. If it starts at a tensor, torch disables the function
    mode for the whole pass. Layers that a checkpoint recomputes would then see the meta device.
    """
    if not loss.requires_grad:
        raise RuntimeError("element 0 of tensors does not require grad and does not have a grad_fn")
    with torch.autocast("cpu", enabled=False):
        torch.autograd.backward(torch.autograd.graph.get_gradient_edge(loss), torch.ones_like(loss))
