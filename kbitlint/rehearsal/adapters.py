"""Adapters of PEFT on models without weights: attached by PEFT itself on the meta device, and never read from a file."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from kbitlint.model.build.load_adapters import Integers
from kbitlint.model.build.packed_weights import pack
from kbitlint.rehearsal.imports import replace
from kbitlint.rehearsal.outcome import NotAtHandError

if TYPE_CHECKING:
    from kbitlint.rehearsal.record import Record

#: the exceptions that may come from values that a model without weights lacks; ``needs_values`` decides
ARTEFACTS = (RuntimeError, NotImplementedError, ValueError, AttributeError, TypeError)


def install(record: Record, peft: Any) -> None:
    """Replace what PEFT reads from files or computes from values, until the process ends."""
    model = peft.PeftModel
    replace(model, "__init__", _on_meta)
    replace(model, "add_adapter", _on_meta)
    replace(peft.tuners.shira.layer.ShiraLayer, "update_layer", _masking)
    replace(model, "from_pretrained", _loading)
    replace(model, "load_adapter", lambda original: _load_adapter(record, original))
    for name in ("merge_and_unload", "merge_adapter"):
        replace(peft.tuners.tuners_utils.BaseTuner, name, lambda original: _merging(record, original))


def is_without_weights(model: Any) -> bool:
    """Return whether a model has parameters without values."""
    return isinstance(model, nn.Module) and any(parameter.is_meta for parameter in model.parameters())


def _on_meta(original: Any) -> Any:
    def function(self: Any, *arguments: Any, **options: Any) -> Any:
        base = next((one for one in (*arguments, *options.values(), self) if isinstance(one, nn.Module)), None)
        known = is_without_weights(base) if getattr(base, "_modules", None) is not None else False
        with torch.device("meta") if known else nullcontext(), Integers() if known else nullcontext():
            made = original(self, *arguments, **options)
        if known:
            pack(self)
        return made

    return function


def _masking(original: Any) -> Any:
    """Return SHiRA's method that takes the places of a mask. A mask without values gets as many places, the first ones."""

    def update_layer(self: Any, adapter_name: str, mask: Any, r: int, *arguments: Any, **options: Any) -> Any:
        if mask is not None and mask.is_meta:
            count = r * sum(mask.shape)
            mask = (torch.arange(mask.numel(), device="cpu") < count).view(mask.shape)
        return original(self, adapter_name, mask, r, *arguments, **options)

    return update_layer


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
    def load_adapter(
        self: Any, model_id: Any, adapter_name: str, is_trainable: Any = None, *arguments: Any, **options: Any
    ) -> Any:
        if not is_without_weights(self):
            return original(self, model_id, adapter_name, is_trainable, *arguments, **options)
        if adapter_name not in self.peft_config:
            from peft import PeftConfig  # an optional dependency

            config = PeftConfig.from_pretrained(str(model_id))
            config.inference_mode = not is_trainable
            self.add_adapter(adapter_name, config)
        if not is_trainable:
            self.eval()
        record.note("weights of adapters are not read")
        return SimpleNamespace(missing_keys=[], unexpected_keys=[])

    return load_adapter


def _merging(record: Record, original: Any) -> Any:
    def merge(self: Any, *arguments: Any, **options: Any) -> Any:
        if not is_without_weights(self):
            return original(self, *arguments, **options)
        try:
            return original(self, *arguments, **options)
        except ARTEFACTS as error:
            if not needs_values(error):
                raise
        record.skip("merging adapters needs weights")
        return self.model

    return merge


def needs_values(error: BaseException) -> bool:
    """Return whether an exception comes from values that a model without weights lacks."""
    text = f"{type(error).__name__} {error}"
    return any(word in text for word in ("meta", "NoneType", "quant_state", "NotImplementedError"))
