"""Rule KB123: altered-packed-weight."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.dtypes import CAST_TO
from kbitlint.facts.source import Action
from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.checkpoint import CheckpointFacts
    from kbitlint.facts.model import ModelFacts
    from kbitlint.facts.model_state import ModelState
    from kbitlint.facts.source import SourceFacts
    from kbitlint.facts.trace import TraceFacts


class AlteredPackedWeight(Rule):
    """A packed weight whose bytes no longer fit the state that was recorded when it was packed.

    ## What it does

    Compares each packed bitsandbytes weight with its own record: the storage dtype in which it was packed, the number of
    bytes that its shape takes, and the shape and block maxima in its quantization state. Reports the first difference, and
    as a warning a weight whose scales are all zero.

    In a checkpoint folder, compares the number of scales with the bytes of the weight, by the safetensors headers, and reads
    the first scales.

    In a script, reports a loop that casts the `data` of every parameter of a packed model.

    ## Why is this bad?

    With `bnb_4bit_quant_storage=torch.bfloat16` the packed bytes pose as bfloat16 numbers. A cast of the model changes
    those numbers, and so the bytes: `model.to(torch.float16)` keeps the size and destroys every weight without an error.
    `model.float()` doubles the size, and the first forward pass raises `shape is invalid for input of size`. A state that
    belongs to another weight unpacks noise.

    Two 8-bit layers that share a weight have its scales once: the first that runs takes them, and the other computes with
    integers. `LoraConfig(layer_replication=...)` makes such layers.

    ## Example

    `for p in model.parameters(): if p.dtype == torch.bfloat16: p.data = p.data.float()` on a model that is stored for
    FSDP.

    ## Fix

    Load the model again, and cast only parameters that are no `Params4bit`. `prepare_model_for_kbit_training` skips them.

    ## Fix safety

    Display only: the bytes are lost.

    ## References

    - https://github.com/bitsandbytes-foundation/bitsandbytes/issues/1426
    - https://github.com/vllm-project/vllm/issues/10590
    - https://github.com/huggingface/accelerate/issues/1620
    """

    meta: ClassVar[Meta] = Meta(
        code="KB123",
        slug="altered-packed-weight",
        severity=Severity.ERROR,
        consequence=Consequence.TRAINS_WRONG,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each loop that casts every parameter of a packed model, on every path to it."""
        for call, steps in source.steps_at(Action.PREPARED_BY_HAND):
            dtype = steps[0].detail
            if all(_in_bytes(step.before) and step.detail in CAST_TO for step in steps):
                yield self.violation(
                    f"the cast to {dtype} reaches the packed weights, whose bytes become numbers",
                    source.at(call),
                    surface=Surface.SOURCE,
                    consequence=Consequence.FAILS,
                    evidence={"dtype": dtype},
                    fix=Fix("cast only parameters that are floating point, and no Params4bit", Safety.DISPLAY),
                )

    def check_files(self, checkpoint: CheckpointFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each stored weight that contradicts its scales."""
        for item in checkpoint.packing.packed:
            if item.conflict:
                yield self.violation(
                    f"the packed weight contradicts its record: {item.conflict}",
                    Location(item.module, checkpoint.tensors[f"{item.module}.weight"].file),
                    surface=Surface.FILES,
                    fix=Fix("save the quantized model again", Safety.DISPLAY),
                )
            elif item.blank:
                yield self.violation(
                    _BLANK,
                    Location(item.module, checkpoint.tensors[f"{item.module}.weight"].file),
                    surface=Surface.FILES,
                    severity=Severity.WARNING,
                    fix=Fix("quantize and save the model again", Safety.DISPLAY),
                )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each packed weight that contradicts its record."""
        if not model.quantized:
            raise Unchecked("no layer is quantized")
        yield from self._conflicts(model, Surface.MODEL)

    def check_trace(self, trace: TraceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield the same."""
        yield from self._conflicts(trace.model, Surface.TRACE)

    def _conflicts(self, model: ModelFacts, surface: Surface) -> Iterator[Violation]:
        for layer in model.quantized:
            if layer.conflict:
                yield self.violation(
                    f"the packed weight contradicts its record: {layer.conflict}",
                    Location(layer.path),
                    surface=surface,
                    evidence={"method": layer.packing.method, "bits": layer.packing.bits},
                    fix=Fix("load the model again, and do not cast it before it trains", Safety.DISPLAY),
                )
            elif layer.blank:
                yield self.violation(
                    _BLANK,
                    Location(layer.path),
                    severity=Severity.WARNING,
                    evidence={"method": layer.packing.method, "bits": layer.packing.bits},
                    fix=Fix("load the model again, from a checkpoint that holds the weight", Safety.DISPLAY),
                )


_BLANK = "the packed weight unpacks to zeros only"


def _in_bytes(model: ModelState) -> bool:
    """Return whether the weights are packed in 4 bits, and stored as bytes: other storage may have the dtype of the cast."""
    config = model.quantization
    return model.packed and model.bits == 4 and config is not None and config.value("bnb_4bit_quant_storage") is None
