"""Saving of models without weights: as far as the libraries get, into the mirror."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from kbitlint.rehearsal.inside.imports import after_import, replace
from kbitlint.rehearsal.stand_ins.adapters import ARTEFACTS, is_without_weights, needs_values, require_data, without_states

if TYPE_CHECKING:
    from kbitlint.rehearsal.inside.record import Record


def install(record: Record) -> None:
    """Replace what writes files or computes from weights, until the process ends."""
    after_import("transformers.modeling_utils", lambda module: _models(record, module))
    after_import("transformers.tokenization_utils_base", lambda module: _folders(record, module.PreTrainedTokenizerBase))
    after_import("peft.peft_model", lambda module: _saving(record, module.PeftModel))


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
            require_data(self)
            without_states(self)  # transformers looks for each entry of them among the parameters of a model on meta
            try:
                return original(self, place, *arguments, **options)
            except ARTEFACTS as error:
                if not is_without_weights(self) or not needs_values(error):
                    raise
            record.skip("saving a model needs its weights")
            return None

        return save_pretrained

    replace(owner, "save_pretrained", make)
