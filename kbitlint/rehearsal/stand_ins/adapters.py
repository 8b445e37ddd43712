"""Adapters of PEFT on models without weights: attached by PEFT itself on the meta device, and never read from a file."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from kbitlint.errors import as_library
from kbitlint.model.build.load_adapters import Integers
from kbitlint.model.build.packed_weights import pack
from kbitlint.model.trace.quant_state import UNPACKED, give_state
from kbitlint.rehearsal.inside.artefacts import NotAtHandError
from kbitlint.rehearsal.inside.imports import replace
from kbitlint.rehearsal.stand_ins import tensors
from kbitlint.rehearsal.stand_ins.weight_files import without_values

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.rehearsal.inside.record import Record

#: the attribute of PEFT's model with the names of adapters that have no data in a real run either
_WITHOUT_DATA = "kbitlint_without_data"
#: the exceptions that may come from values that a model without weights lacks; ``needs_values`` decides
ARTEFACTS = (RuntimeError, NotImplementedError, ValueError, AttributeError, TypeError)


def install(record: Record, peft: Any) -> None:
    """Replace what PEFT reads from files or computes from values, until the process ends."""
    model = peft.PeftModel
    replace(model, "__init__", _on_meta)
    replace(model, "add_adapter", _on_meta)
    replace(peft.tuners.shira.layer.ShiraLayer, "update_layer", _masking)
    replace(peft.tuners.delora.layer.DeloraLayer, "reset_delora_parameters", _norming)
    replace(model, "from_pretrained", _loading)
    replace(model, "load_adapter", lambda original: _load_adapter(record, original))
    tuner = peft.tuners.tuners_utils.BaseTuner
    replace(tuner, "merge_and_unload", lambda original: _merging(record, original, tuner.unload))
    replace(tuner, "merge_adapter", lambda original: _merging(record, original))


def is_without_weights(model: Any) -> bool:
    """Return whether a model has parameters without values."""
    return isinstance(model, nn.Module) and any(parameter.is_meta for parameter in model.parameters())


def make_unpackable(model: nn.Module) -> None:
    """Give the packed weights of a model on meta the form and the state by which bitsandbytes unpacks them."""
    pack(model)
    for module in model.modules():
        weight: Any = module._parameters.get("weight")  # noqa: SLF001  # torch has no public dictionary
        if weight is None or not weight.is_meta or type(weight).__name__ not in ("Params4bit", "Int8Params"):
            continue
        give_state(weight, weight, lambda tensor: tensor)
        if hasattr(module, "quant_state"):
            module.quant_state = weight.quant_state


def without_states(model: Any) -> None:
    """Take the states back that ``make_unpackable`` gave. A later call of it gives them again."""
    for module in model.modules() if is_without_weights(model) else ():
        weight: Any = module._parameters.get("weight")  # noqa: SLF001  # torch has no public dictionary
        if weight is None or not weight.is_meta:
            continue
        if type(weight).__name__ == "Int8Params":
            weight.CB = weight.SCB = None
            if hasattr(module, "state"):
                module.state.SCB = None
        elif hasattr(weight, UNPACKED):
            weight.quant_state = None
            if hasattr(module, "quant_state"):
                module.quant_state = None


def _on_meta(original: Any) -> Any:
    def function(self: Any, *arguments: Any, **options: Any) -> Any:
        base = next((one for one in (*arguments, *options.values(), self) if isinstance(one, nn.Module)), None)
        known = is_without_weights(base) if getattr(base, "_modules", None) is not None else False
        with torch.device("meta") if known else nullcontext(), Integers() if known else nullcontext():
            tensors.adapters_without_data(bool(options.get("low_cpu_mem_usage")))
            made = original(self, *arguments, **options)
        if known:
            make_unpackable(self)
            if options.get("low_cpu_mem_usage"):
                names = [one for one in (*arguments, *options.values()) if isinstance(one, str)]
                setattr(self, _WITHOUT_DATA, {*getattr(self, _WITHOUT_DATA, ()), *(names[:1] or ["default"])})
        return made

    return function


def require_data(model: Any) -> None:
    """Raise as safetensors does if a model has adapters that are on the meta device in a real run too.

    Raises:
        NotImplementedError: Nothing has loaded the adapters that ``low_cpu_mem_usage`` left without data.
    """
    if getattr(model, _WITHOUT_DATA, None):
        raise as_library(NotImplementedError("Cannot copy out of meta tensor; no data!"))


def _masking(original: Any) -> Any:
    """Return SHiRA's method that takes the places of a mask. A mask without values gets as many places, the first ones."""

    def update_layer(self: Any, adapter_name: str, mask: Any, r: int, *arguments: Any, **options: Any) -> Any:
        if mask is not None and mask.is_meta:
            count = r * sum(mask.shape)
            mask = (torch.arange(mask.numel(), device="cpu") < count).view(mask.shape)
        return original(self, adapter_name, mask, r, *arguments, **options)

    return update_layer


def _norming(original: Any) -> Any:
    """Return DeLoRA's method that takes the norm of the weight, which raises for packed ones. On meta it takes none."""

    def reset_delora_parameters(self: Any, *arguments: Any, **options: Any) -> None:
        weight = self.get_base_layer().weight
        if weight.is_meta:
            torch.norm(weight.data, dim=0)
        original(self, *arguments, **options)

    return reset_delora_parameters


def _loading(original: Any) -> Any:
    def from_pretrained(cls: Any, model: Any, model_id: Any, *arguments: Any, **options: Any) -> Any:
        try:
            return original(cls, model, model_id, *arguments, **options)
        except ValueError as error:
            if "adapter_config.json" in str(error) and not Path(str(model_id)).is_dir():
                raise NotAtHandError(f"the adapter {model_id} is not on this machine") from error
            raise ValueError(*error.args) from None  # without the request to the Hub that PEFT made before

    return from_pretrained


def _load_adapter(record: Record, original: Any) -> Any:
    """Return PEFT's method that loads an adapter. Of the file, it gets the names, shapes and dtypes of the tensors."""

    def load_adapter(self: Any, model_id: Any, adapter_name: str, *arguments: Any, **options: Any) -> Any:
        if not is_without_weights(self):
            return original(self, model_id, adapter_name, *arguments, **options)
        record.note("weights of adapters are not read")
        getattr(self, _WITHOUT_DATA, set()).discard(adapter_name)
        try:
            with _only_names():
                return original(self, model_id, adapter_name, *arguments, **options)
        except ARTEFACTS as error:
            if not needs_values(error):
                raise
        return SimpleNamespace(missing_keys=[], unexpected_keys=[])

    return load_adapter


@contextmanager
def _only_names() -> Iterator[None]:
    """Let PEFT load tensors without values inside the ``with`` statement."""
    from peft.utils import save_and_load  # an optional dependency

    original = save_and_load.safe_load_file

    def load_file(filename: Any, *arguments: Any, **options: Any) -> Any:
        held = without_values(filename)
        return original(filename, *arguments, **options) if held is None else held

    save_and_load.safe_load_file = load_file
    try:
        yield
    finally:
        save_and_load.safe_load_file = original


def _merging(record: Record, original: Any, instead: Any = None) -> Any:
    """Return a method that merges adapters. Where values are needed, ``instead`` returns the model as the merge leaves it."""

    def merge(self: Any, *arguments: Any, **options: Any) -> Any:
        if not is_without_weights(self):
            return original(self, *arguments, **options)
        try:
            merged = original(self, *arguments, **options)
        except ARTEFACTS as error:
            if not needs_values(error):
                raise
        else:
            make_unpackable(self.model)
            return merged
        record.skip("merging adapters needs weights")
        return instead(self) if instead is not None else None

    return merge


def needs_values(error: BaseException) -> bool:
    """Return whether an exception comes from values that a model without weights lacks."""
    text = f"{type(error).__name__} {error}"
    return any(word in text for word in ("meta", "NoneType", "quant_state", "NotImplementedError"))
