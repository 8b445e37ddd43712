"""The batch of a traced step: the documented one, or one that a forward without weights has corrected."""

from __future__ import annotations

import re
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from kbitlint.model.batch import called, loss_of
from kbitlint.model.inputs.fitting import fitted_plan
from kbitlint.model.inputs.settling import Settling, settling
from kbitlint.model.inputs.structure import described
from kbitlint.model.inputs.supplied import is_supplied
from kbitlint.model.isolation import seeded
from kbitlint.model.trace.dtype_errors import is_about_dtypes
from kbitlint.model.trace.function_mode import weightless
from kbitlint.model.trace.guard import Guard
from kbitlint.model.trace.ledger import Ledger
from kbitlint.model.trace.namespaces import without_leftovers
from kbitlint.model.trace.step import LONG, without_contents
from kbitlint.model.trace.twin import originals_of, stand_in_quantized, twin_of

if TYPE_CHECKING:
    from torch import nn

    from kbitlint.model.inputs.plan import Plan
    from kbitlint.model.trace.ledger import Refusal

#: Failures that no other batch mends, beside floating-point dtypes that do not fit.
_NOT_OF_THE_BATCH = re.compile(
    r"not implemented for '(BFloat16|Half)'|leaf Variable that requires grad|modified by an inplace operation"
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
    if is_supplied(described(model)):  # the user's batch, which no correction changes
        return None
    with seeded():
        twin = twin_of(model)
        stand_in_quantized(twin, device, adapters=False)
        twin.train()
        ledger, mode = Ledger(device), Settling()
        guard = ledger.guard = Guard(
            {original: name for name, module in twin.named_modules() for original in originals_of(module)}
        )

        def run(made: dict[str, Any]) -> BaseException | None:
            """Return what the forward of the twin raised because of its batch."""
            ledger.refusals.clear()
            ledger.compared.clear()
            mode.calls = 0
            try:
                with torch.no_grad(), guard.watching(), without_leftovers(twin), weightless(ledger), settling(mode):
                    loss_of(called(twin, without_contents(made)))
            except Exception as error:  # noqa: BLE001  # the error is the answer
                return None if is_no_matter_of_the_batch(error) else error
            return next(map(_raised, filter(mixes_integers, ledger.refusals.values())), None)

        return fitted_plan(twin, run, batch, seq_len, (lambda: frozenset(ledger.compared), lambda: mode.calls))


def is_no_matter_of_the_batch(error: BaseException) -> bool:
    """Return whether no other batch mends an error of a forward."""
    return (is_about_dtypes(error) or bool(_NOT_OF_THE_BATCH.search(str(error)))) and not LONG.search(str(error))


def is_of_adapter(error: BaseException | None) -> bool:
    """Return whether the code of an adapter's layer raised an error, past the operators of torch that it called.

    The class of the base accepts such a batch. A batch of one token may fit both by chance.
    """
    frames = traceback.extract_tb(error.__traceback__) if error is not None else []
    files = [Path(frame.filename).parts for frame in frames]
    own = [parts for parts in files if not {"torch", "kbitlint"} & set(parts)]
    return bool(own) and {"peft", "tuners"} <= set(own[-1])


def mixes_integers(refusal: Refusal) -> bool:
    """Return whether a kernel refused integers of a batch beside floating-point numbers."""
    return torch.int64 in refusal.dtypes and any(dtype.is_floating_point for dtype in refusal.dtypes)


def _raised(refusal: Refusal) -> BaseException:
    """Return the error of a refusal of integers. A kernel without weights raises none."""
    names = " and ".join(map(str, refusal.dtypes))
    return RuntimeError(f"{refusal.operator}: expected one dtype, but got {names}")
