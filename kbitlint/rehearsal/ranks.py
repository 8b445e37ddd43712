"""Several ranks: the script runs as rank 0 of a group whose other ranks answer at once, without a connection."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from kbitlint.rehearsal.adapters import is_without_weights
from kbitlint.rehearsal.imports import replace

if TYPE_CHECKING:
    from kbitlint.rehearsal.record import Record


def install(record: Record) -> None:
    """Replace the start of process groups, until the process ends."""
    if not torch.distributed.is_available():
        return
    replace(torch.distributed, "init_process_group", lambda original: _starting(record, original))
    replace(nn.parallel.DistributedDataParallel, "__init__", _wrapping)


def _starting(record: Record, original: Any) -> Any:
    @functools.wraps(original)
    def init_process_group(*_: Any, **__: Any) -> None:
        from torch.testing._internal.distributed.fake_pg import FakeStore  # torch's own group for tests of one process

        if torch.distributed.is_initialized():
            return
        count = int(os.environ.get("WORLD_SIZE", "1"))
        original("fake", store=FakeStore(), rank=0, world_size=count)
        record.stand_in(f"the other {count - 1} of {count} ranks" if count > 1 else "the process group")

    return init_process_group


def _wrapping(original: Any) -> Any:
    """Return a constructor of DDP that compares no values between ranks where the model has none."""

    @functools.wraps(original)
    def __init__(self: Any, module: nn.Module, *arguments: Any, **options: Any) -> None:  # noqa: N807  # the name that torch's own has
        if not is_without_weights(module):
            original(self, module, *arguments, **options)
            return
        if not any(parameter.requires_grad for parameter in module.parameters()):
            raise RuntimeError(
                "DistributedDataParallel is not needed when a module doesn't have any parameters that require a gradient."
            )
        nn.Module.__init__(self)
        self.module = module
        self.device_ids = options.get("device_ids")
        self.find_unused_parameters = bool(options.get("find_unused_parameters", False))
        self.static_graph = bool(options.get("static_graph", False))
        self.require_backward_grad_sync = True
        self.gradient_as_bucket_view = bool(options.get("gradient_as_bucket_view", False))
        self.register_comm_hook = lambda *_, **__: None

    return __init__
