"""Saving of models without weights: as far as the libraries get, into the mirror."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch

from kbitlint.rehearsal.adapters import ARTEFACTS, is_without_weights, needs_values
from kbitlint.rehearsal.imports import after_import, replace

if TYPE_CHECKING:
    from kbitlint.rehearsal.record import Record


def install(record: Record) -> None:
    """Replace what writes files or computes from weights, until the process ends."""
    after_import("transformers.modeling_utils", lambda module: _models(record, module))
    after_import("transformers.tokenization_utils_base", lambda module: _folders(record, module.PreTrainedTokenizerBase))
    after_import("peft.peft_model", lambda module: _saving(record, module.PeftModel))


def install_files(record: Record) -> None:
    """Replace the functions that write tensors. Libraries import them by name, so this comes before their import."""
    import safetensors.torch  # comes with transformers, and imports torch only

    replace(torch, "save", lambda original: _torch_save(record, original))
    replace(safetensors.torch, "save_file", lambda original: _save_file(record, original))


def _torch_save(record: Record, original: Any) -> Any:
    @functools.wraps(original)
    def save(obj: Any, f: Any, *arguments: Any, **options: Any) -> None:
        place = record.mirror.for_writing(str(f), keep=False) if isinstance(f, (str, bytes)) or hasattr(f, "__fspath__") else f
        original(obj, place, *arguments, **options)

    return save


def _save_file(record: Record, original: Any) -> Any:
    @functools.wraps(original)
    def save_file(tensors: Any, filename: Any, *arguments: Any, **options: Any) -> None:
        held = {name: tensor for name, tensor in tensors.items() if not tensor.is_meta}
        original(held, record.mirror.for_writing(str(filename), keep=False), *arguments, **options)

    return save_file


def _models(record: Record, module: Any) -> None:
    _saving(record, module.PreTrainedModel)


def _folders(record: Record, owner: Any) -> None:
    """Let native code of tokenizers write into a folder of the mirror."""

    def make(original: Any) -> Any:
        @functools.wraps(original)
        def save_pretrained(self: Any, save_directory: Any, *arguments: Any, **options: Any) -> Any:
            return original(self, record.mirror.own_entries(str(save_directory)), *arguments, **options)

        return save_pretrained

    replace(owner, "save_pretrained", make)


def _saving(record: Record, owner: Any) -> None:
    def make(original: Any) -> Any:
        @functools.wraps(original)
        def save_pretrained(self: Any, save_directory: Any, *arguments: Any, **options: Any) -> Any:
            place = record.mirror.own_entries(str(save_directory))
            try:
                return original(self, place, *arguments, **options)
            except ARTEFACTS as error:
                if not is_without_weights(self) or not needs_values(error):
                    raise
            record.skip("saving a model needs its weights")
            return None

        return save_pretrained

    replace(owner, "save_pretrained", make)
