"""Passes without gradients on a twin: what an evaluation or a generation runs between steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from kbitlint.errors import one_line
from kbitlint.model.isolation import seeded
from kbitlint.model.trace.function_mode import autocast_region, weightless
from kbitlint.model.trace.guard import Guard
from kbitlint.model.trace.namespaces import without_leftovers
from kbitlint.model.trace.recorder import prepared
from kbitlint.model.trace.step import UntraceableError, runnable
from kbitlint.model.trace.twin import originals_of, stand_in_quantized

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from kbitlint.facts.model import ModelFacts
    from kbitlint.model.trace.step import AllocationObserver


class ForwardPasses:
    """A twin that runs passes without gradients, in eval mode. The twin cannot be used for anything else.

    Args:
        twin: The copy of the model.
        facts: Facts of a walk over the model.
        device: The device whose kernels are simulated, ``cpu`` or ``cuda``.
        autocast: The dtype of the autocast region; None without one.
    """

    def __init__(self, twin: nn.Module, facts: ModelFacts, device: str, autocast: str | None) -> None:
        self.twin = runnable(twin)
        self.device, self.autocast = device, autocast
        stood_in = stand_in_quantized(self.twin, device, adapters=False)
        self.step = prepared(self.twin, device, facts)
        self.step.ledger.packed = {id(weight): self.step.paths[id(module)] for module, weight in stood_in.packed}
        modules = self.step.modules.items()
        self.step.ledger.guard = Guard({original: path for path, module in modules for original in originals_of(module)})
        self.twin.eval()

    def run(self, passes: Callable[[Any], Any], live: AllocationObserver | None = None) -> Any:
        """Run passes, and return their result. An observer receives each allocation.

        Raises:
            UntraceableError: They need values or kernels that do not exist without weights.
        """
        ledger = self.step.ledger
        ledger.allocated, self.step.moment = (None, None) if live is None else (live.see, live.name)
        for tensor in () if live is None else (*self.twin.parameters(), *self.twin.buffers()):
            live.own(tensor)  # type: ignore[union-attr]  # the loop is empty without an observer
        try:
            with seeded(), torch.no_grad(), ledger.guard.watching(), without_leftovers(self.twin), weightless(ledger):  # type: ignore[union-attr]  # set above
                if self.autocast in (None, "float32"):
                    return passes(self.twin)
                with autocast_region(self.device, getattr(torch, str(self.autocast))):
                    return passes(self.twin)
        except Exception as error:
            raise UntraceableError(f"no pass without weights: {one_line(error)}") from error
