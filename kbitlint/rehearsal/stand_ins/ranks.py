"""Several ranks: they meet on gloo in a group of their own machine. One process alone has a group that answers at once."""

from __future__ import annotations

import datetime as dt
import functools
import os
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kbitlint.rehearsal.inside import peers
from kbitlint.rehearsal.inside.imports import replace
from kbitlint.rehearsal.stand_ins.adapters import is_without_weights

if TYPE_CHECKING:
    from kbitlint.rehearsal.inside.record import Record

#: seconds that a rank waits in a collective. A lost rank ends it at once; the limit of the rehearsal is usually lower.
_PATIENCE = 600.0
#: collectives; on tensors without values they do nothing, on all ranks alike
_COLLECTIVES = (
    *("all_reduce", "broadcast", "reduce", "all_gather", "all_gather_into_tensor", "gather", "scatter", "send", "recv"),
    *("reduce_scatter", "reduce_scatter_tensor", "all_to_all", "all_to_all_single", "isend", "irecv"),
)


def install(record: Record) -> None:
    """Replace the start of process groups, until the process ends."""
    if not torch.distributed.is_available():
        return
    replace(torch.distributed, "init_process_group", lambda original: _starting(record, original))
    replace(torch.distributed, "new_group", _grouping)
    for name in _COLLECTIVES:
        replace(torch.distributed, name, _collecting)
    replace(nn.parallel.DistributedDataParallel, "__init__", _wrapping)


def _starting(record: Record, original: Any) -> Any:
    @functools.wraps(original)
    def init_process_group(*_: Any, **__: Any) -> None:
        if torch.distributed.is_initialized():
            return
        if peers.count_of(record) > 1:
            _meet(record, original)
            return
        from torch.testing._internal.distributed.fake_pg import FakeStore  # torch's own group for tests of one process

        count = int(os.environ.get("WORLD_SIZE", "1"))
        original("fake", store=FakeStore(), rank=0, world_size=count)
        record.stand_in(f"the other {count - 1} of {count} ranks" if count > 1 else "the process group")

    return init_process_group


def _meet(record: Record, original: Any) -> None:
    """Start the group of the ranks of this rehearsal, on gloo. Its store is a file of the rehearsal's folder.

    torch compares the collectives of the ranks before each one: it names ranks that differ, where they would wait for ever.
    """
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if os.uname().sysname == "Darwin" else "lo")  # this machine only
    torch.distributed.set_debug_level(torch.distributed.DebugLevel.DETAIL)
    count = peers.count_of(record)
    store = torch.distributed.FileStore(os.path.join(record.request.folder, "group"), count)  # noqa: PTH118  # native code takes a string
    patience = dt.timedelta(seconds=_PATIENCE)
    original("gloo", store=store, rank=int(os.environ["RANK"]), world_size=count, timeout=patience)
    record.stand_in("NCCL (gloo)")


def _grouping(original: Any) -> Any:
    """Return the function that makes further groups, of the kind of the first one."""

    @functools.wraps(original)
    def new_group(ranks: Any = None, timeout: Any = None, backend: Any = None, *arguments: Any, **options: Any) -> Any:  # noqa: ARG001  # NCCL is not here
        options.pop("device_id", None)
        return original(ranks, timeout, None, *arguments, **options)

    return new_group


def _collecting(original: Any) -> Any:
    @functools.wraps(original)
    def collective(*arguments: Any, **options: Any) -> Any:
        values = (*arguments, *options.values())
        tensors = [one for value in values for one in (value if isinstance(value, (list, tuple)) else (value,))]
        if any(isinstance(one, Tensor) and one.is_meta for one in tensors):
            return None
        return original(*arguments, **options)

    return collective


def _wrapping(original: Any) -> Any:
    """Return a constructor of DDP that compares no values between ranks where the model has none, but its shapes."""

    @functools.wraps(original)
    def __init__(self: Any, module: nn.Module, *arguments: Any, **options: Any) -> None:  # noqa: N807  # the name that torch's own has
        if not is_without_weights(module):
            original(self, module, *arguments, **options)
            return
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        if not trained:
            raise RuntimeError(
                "DistributedDataParallel is not needed when a module doesn't have any parameters that require a gradient."
            )
        _compare_shapes(options.get("process_group"), trained)
        nn.Module.__init__(self)
        self.module = module
        self.device_ids = options.get("device_ids")
        self.find_unused_parameters = bool(options.get("find_unused_parameters", False))
        self.static_graph = bool(options.get("static_graph", False))
        self.require_backward_grad_sync = True
        self.gradient_as_bucket_view = bool(options.get("gradient_as_bucket_view", False))
        self.register_comm_hook = lambda *_, **__: None

    return __init__


def _compare_shapes(group: Any, parameters: list[nn.Parameter]) -> None:
    """Compare the shapes of parameters with those of the other ranks, as DDP does.

    Raises:
        RuntimeError: They differ. The message is torch's own.
    """
    group = group or torch.distributed.group.WORLD
    if group is None or torch.distributed.get_backend(group) != "gloo":
        return
    shaped = [torch.empty((), dtype=one.dtype, device="cpu").expand(one.shape) for one in parameters]  # one value each
    torch.distributed._verify_params_across_processes(group, shaped, None)  # type: ignore[attr-defined]  # noqa: SLF001  # DDP's own check
