"""What a real step allocates, from the record of torch's profiler."""

from __future__ import annotations

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kbitlint.model.batch import loss_of, training_batch
from kbitlint.model.memory.live_bytes import LiveBytes


def peak_of(model, step):
    """The most bytes that were allocated at once while a real step ran, from the profiler's own record."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    now = most = 0
    for event in sorted(profiler.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most


class MemoryLimit(TorchDispatchMode):
    """Raises MemoryError where a real step holds more bytes than a limit. It sees what each operator returns."""

    def __init__(self, limit, held):
        super().__init__()
        self.limit, self.live = limit, LiveBytes()
        for tensor in held:
            self.live.see(tensor)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # torch's signature
        found = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, torch.Tensor):
                self.live.see(tensor)
        if self.live.now > self.limit:
            raise MemoryError(f"{self.live.now} bytes, and the limit is {self.limit}")
        return found


def tensors_of(model, optimizer):
    """Yield every tensor that lives for the whole run: the model's, of its quantization states and of the optimizer."""
    yield from (*model.parameters(), *model.buffers())
    for module in model.modules():
        state = getattr(getattr(module, "weight", None), "quant_state", None)
        yield from (value for value in vars(state).values() if isinstance(value, torch.Tensor)) if state else ()
    for state in optimizer.state.values():
        yield from (value for value in state.values() if isinstance(value, torch.Tensor))


def runs_within(limit, model, batch, seq_len):
    """Return whether a real training step after the first one holds no more bytes than a limit."""
    optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.0)
    model.train()

    def step(size, tokens):
        loss_of(model(**training_batch(model, "cpu", size, tokens))).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    step(1, 8)
    try:
        with MemoryLimit(limit, tensors_of(model, optimizer)):
            step(batch, seq_len)
    except MemoryError:
        return False
    finally:
        model.zero_grad(set_to_none=True)
    return True
