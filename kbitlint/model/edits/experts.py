"""Fused experts in 4 bits: what bitsandbytes puts in place of a parameter, and how the original comes back.

transformers 5 stacks the matrices of all experts of a layer in one parameter, which ``load_in_4bit`` leaves as it is.
``bitsandbytes.nn.parametrize`` replaces such a parameter by a packed one and a parametrization that unpacks it
whenever it is read.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from kbitlint.errors import EditError, one_line
from kbitlint.extras import load_bitsandbytes
from kbitlint.model.edits.journal import restore_hooks_on_rollback
from kbitlint.model.layers.experts import packed_kind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kbitlint.model.edits.checkpoint_tensors import StoredParameters
    from kbitlint.model.edits.journal import Journal


def pack(module: nn.Module, path: str, arguments: Mapping[str, Any], journal: Journal, checkpoint: Callable[[], Any]) -> None:
    """Replace a stack of matrices by its packed form; the journal brings the original back, bit for bit.

    No second copy of the original is kept where the model's checkpoint still holds it: it is read again, once to
    compare and once to be restored. Otherwise it waits in host memory.

    Args:
        module: The module that owns the parameter.
        path: The path of the parameter below the base model.
        arguments: ``quant_type`` (nf4 or fp4) and ``compress_statistics`` (double quantization).
        journal: Where the way back is entered.
        checkpoint: Gives the StoredParameters of the model, or None.

    Raises:
        EditError: There is no such parameter, it is no float stack of matrices, or bitsandbytes cannot pack it.
    """
    name = path.rpartition(".")[2]
    if parametrize.is_parametrized(module, name) and packed_kind(module.parametrizations[name]) is not None:  # type: ignore[index, union-attr]  # a ModuleDict
        return
    original = module._parameters.get(name)  # noqa: SLF001  # torch has no public dictionary
    if original is None or not original.is_floating_point():
        raise EditError(f"pack-experts: {path!r} is no float parameter")
    load_bitsandbytes("packing experts")
    try:
        packer: Any = importlib.import_module("bitsandbytes.nn.parametrize")
    except ModuleNotFoundError as error:
        raise EditError("pack-experts: the installed bitsandbytes packs no parameters; install a newer one") from error
    if not journal.forgets:
        _restore_on_rollback(module, name, original, _way_back(path, original, checkpoint), journal)
    try:
        packer.replace_parameter_4bit(
            module,
            name,
            quant_type=arguments.get("quant_type", "nf4"),
            compress_statistics=bool(arguments.get("compress_statistics", False)),
        )
    except (RuntimeError, ValueError, NotImplementedError) as error:
        raise EditError(f"pack-experts: bitsandbytes cannot pack {path!r}: {one_line(error)}") from error
    original.data = torch.empty(0, dtype=original.dtype, device=original.device)


# -------------------------------------------------------------------------------------------- the way back


def _restore_on_rollback(
    module: nn.Module, name: str, original: nn.Parameter, again: Callable[[], Tensor], journal: Journal
) -> None:
    own = module._parameters  # noqa: SLF001  # torch has no public dictionary
    order, trains = list(own), original.requires_grad
    hooks = module._state_dict_hooks  # noqa: SLF001  # torch has no public way to list hooks
    saved = dict(hooks)
    restore_hooks_on_rollback(module, journal)

    def restore() -> None:
        if parametrize.is_parametrized(module, name):
            parametrize.remove_parametrizations(module, name, leave_parametrized=False)
        if original.numel() == 0:
            original.data = again()
        own[name] = original.requires_grad_(trains)
        held = {key: own[key] for key in order if key in own}
        own.clear()
        own.update(held)
        hooks.clear()
        hooks.update(saved)

    journal.record(restore)


def _way_back(path: str, original: nn.Parameter, checkpoint: Callable[[], StoredParameters | None]) -> Callable[[], Tensor]:
    """What gives the original's values again: the checkpoint where it holds the same bits, else a copy in host memory."""
    device, dtype = original.device, original.dtype
    if original.is_meta:
        shape = original.shape
        return lambda: torch.empty(shape, dtype=dtype, device=device)
    stored = checkpoint()
    if stored is not None and _same(stored.parameter(path, dtype), original):
        return lambda: _reread(stored, path, dtype).to(device)
    kept = original.detach().to("cpu", copy=True)
    return lambda: kept.to(device)


def _same(stored: Tensor | None, original: Tensor) -> bool:
    """Whether two tensors are equal bit for bit: a NaN is equal to itself."""
    if stored is None or stored.shape != original.shape or stored.dtype != original.dtype:
        return False
    here = original.detach().cpu()
    return torch.equal(stored.contiguous().view(torch.uint8), here.contiguous().view(torch.uint8))


def _reread(stored: StoredParameters, path: str, dtype: torch.dtype) -> Tensor:
    found = stored.parameter(path, dtype)
    if found is None:
        raise EditError(f"the checkpoint no longer holds {path}, which the fix packed: load the model again")
    return found
