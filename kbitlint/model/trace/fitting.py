"""The batch of a traced step: the documented one, or one that a forward without weights has corrected."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch

from kbitlint.model.batch import loss_of
from kbitlint.model.inputs.fitting import fitted_plan
from kbitlint.model.isolation import seeded
from kbitlint.model.trace.function_mode import weightless
from kbitlint.model.trace.guard import Guard
from kbitlint.model.trace.ledger import Ledger
from kbitlint.model.trace.namespaces import without_leftovers
from kbitlint.model.trace.step import without_contents
from kbitlint.model.trace.twin import originals_of, stand_in_quantized, twin_of

if TYPE_CHECKING:
    from torch import nn

    from kbitlint.model.inputs.plan import Plan

#: Failures that no other batch mends: dtypes that do not fit, and what autograd refuses.
_NOT_OF_THE_BATCH = re.compile(
    r"dtype|scalar type|same type|without overflow|bias type|can't be cast|not implemented for '(BFloat16|Half)'"
    r"|leaf Variable that requires grad|modified by an inplace operation"
)


def plan_for(model: nn.Module, device: str, batch: int = 2, seq_len: int = 16) -> Plan | None:
    """Return the plan of a batch on which a model's forward runs, or None if no correction leads to one.

    The forward runs on a twin, so the model is only read.

    Args:
        model: The module that the training loop calls.
        device: The device whose kernels are simulated, ``cpu`` or ``cuda``.
        batch: Samples in the batch.
        seq_len: Tokens in each sample.

    Raises:
        TwinError: The model cannot be copied.
    """
    with seeded():
        twin = twin_of(model)
        stand_in_quantized(twin, device, adapters=False)
        twin.train()
        ledger = Ledger(device)
        guard = ledger.guard = Guard(
            {original: name for name, module in twin.named_modules() for original in originals_of(module)}
        )

        def run(made: dict[str, Any]) -> BaseException | None:
            """Return what the forward of the twin raised because of its batch."""
            ledger.refusals.clear()
            try:
                with torch.no_grad(), guard.watching(), without_leftovers(twin), weightless(ledger):
                    loss_of(twin(**without_contents(made)))
            except Exception as error:  # noqa: BLE001  # the error is the answer
                return None if _NOT_OF_THE_BATCH.search(str(error)) or ledger.refusals else error
            return None

        return fitted_plan(twin, run, batch, seq_len)
