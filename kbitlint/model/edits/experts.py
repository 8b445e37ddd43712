"""Packing of fused experts in 4 bits, and the restoration of the original.

transformers 5 stacks the matrices of all experts of a layer in one parameter, which ``load_in_4bit`` leaves unpacked.
``bitsandbytes.nn.parametrize`` replaces such a parameter by a packed one, and unpacks it on every read.
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
    """Replace a stack of matrices by its packed form. A rollback restores the original bit for bit.

    If the model's checkpoint holds the same values, no copy of the original is kept. The checkpoint is then read twice: to
    compare, and to restore. Otherwise a copy stays in host memory.

    Args:
        module: The module that owns the parameter.
        path: The path of the parameter below the base model.
        arguments: ``quant_type`` (nf4 or fp4) and ``compress_statistics`` (double quantization).
        journal: Records how to restore the original.
        checkpoint: Returns the StoredParameters of the model, or None.

    Raises:
        EditError: The parameter does not exist or is no float stack of matrices. Or bitsandbytes cannot pack it.
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


def _restore_on_rollback(
    module: nn.Module, name: str, original: nn.Parameter, again: Callable[[], Tensor], journal: Journal
) -> None:
    """Record how to restore the original parameter, its position among the module's parameters, and the hooks.

    Args:
        module: The module that owns the parameter.
        name: The name of the parameter in the module.
        original: The parameter.
        again: Returns its values.
        journal: The journal.
    """
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
    """Return a function that returns the original's values.

    It reads the checkpoint if that holds the same bits, and a copy in host memory otherwise.
    """
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
    """Return whether two tensors are equal bit for bit. A NaN is then equal to itself."""
    if stored is None or stored.shape != original.shape or stored.dtype != original.dtype:
        return False
    here = original.detach().cpu()
    return torch.equal(stored.contiguous().view(torch.uint8), here.contiguous().view(torch.uint8))


def _reread(stored: StoredParameters, path: str, dtype: torch.dtype) -> Tensor:
    found = stored.parameter(path, dtype)
    if found is None:
        raise EditError(f"the checkpoint no longer holds {path}, which the fix packed: load the model again")
    return found
