"""KB825."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.checkpoint import CheckpointFacts

#: what bitsandbytes stores beside a packed parameter that is no weight of a Linear4bit
_STATE = re.compile(r"(?P<parameter>.+)\.quant_state\.bitsandbytes__(nf4|fp4)")


class PackedParameterInCheckpoint(Rule):
    """Packed experts in a checkpoint, which `from_pretrained` cannot load.

    ## What it does

    Reports, from the safetensors headers, parameters that are stored packed with their quantization state and are no
    weight of a Linear layer.

    ## Why is this bad?

    `bitsandbytes.nn.parametrize.replace_parameter_4bit` packs parameters in place, and its hook puts packed bytes and
    their state into the state dict. transformers knows such a state for the weights of `Linear4bit` only: with the
    bytes of a stack of experts `from_pretrained` stops at a size mismatch, and with `ignore_mismatched_sizes=True` the
    experts are random. (`save_pretrained` itself raises `Undefined Operation encountered!` for most mixtures of
    experts, unless it is told `save_original_format=False`.)

    ## Example

    `model.save_pretrained(folder, save_original_format=False)` after the experts were packed.

    ## Fix

    Save the adapters only. Of the base, keep the original checkpoint and its `kbitlint.json`:
    `kbitlint.load_prepared` packs the experts as it loads; or call `kbitlint.undo(model)` before saving.

    ## Fix safety

    Shown only: the bits that packing dropped are not in the folder.

    ## References

    - https://github.com/bitsandbytes-foundation/bitsandbytes/pull/1965
    - https://github.com/bitsandbytes-foundation/bitsandbytes/issues/1849
    """

    meta: ClassVar[Meta] = Meta(
        code="KB825",
        slug="packed-parameter-in-checkpoint",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )

    def check_files(self, checkpoint: CheckpointFacts, context: TrainingContext) -> Iterator[Violation]:
        """One violation for each packed parameter."""
        if not checkpoint.tensors:
            raise Unchecked("no safetensors headers here")
        for name, tensor in checkpoint.tensors.items():
            match = _STATE.fullmatch(name)
            if match is None or match["parameter"].endswith(".weight") or match["parameter"] not in checkpoint.tensors:
                continue
            yield self.violation(
                "a parameter is stored packed, which from_pretrained loads for Linear layers only",
                Location(match["parameter"], tensor.file),
                surface=Surface.FILES,
                fix=Fix("save the adapters only; load the base with kbitlint.load_prepared", Safety.DISPLAY),
            )
