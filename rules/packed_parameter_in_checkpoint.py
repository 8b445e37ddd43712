"""Rule KB825: packed-parameter-in-checkpoint."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.checkpoint import CheckpointFacts

#: the state that bitsandbytes stores beside a packed parameter that is not the weight of a Linear4bit
_STATE = re.compile(r"(?P<parameter>.+)\.quant_state\.bitsandbytes__(nf4|fp4)")


class PackedParameterInCheckpoint(Rule):
    """Packed experts in a checkpoint, which `from_pretrained` cannot load.

    ## What it does

    Reads the safetensors headers. Reports parameters that are stored packed, with their quantization state, and are not
    the weight of a Linear layer.

    ## Why is this bad?

    `bitsandbytes.nn.parametrize.replace_parameter_4bit` packs parameters in place, and its hook writes the packed bytes
    and their state into the state dict. transformers reads such a state only for the weights of `Linear4bit`. For a
    stack of experts, `from_pretrained` stops with a size mismatch. With `ignore_mismatched_sizes=True` the experts are
    random.

    For most mixtures of experts, `save_pretrained` itself raises `Undefined Operation encountered!`, unless
    `save_original_format=False` is passed.

    ## Example

    `model.save_pretrained(folder, save_original_format=False)` after the experts were packed.

    ## Fix

    Save the adapters only. Of the base, keep the original checkpoint and its `kbitlint.json`: `kbitlint.load_prepared`
    packs the experts while it loads. Or call `kbitlint.undo(model)` before saving.

    ## Fix safety

    Display only: the folder does not contain the bits that packing dropped.

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
        """Yield one violation for each packed parameter."""
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
