"""Rule KB506: unpacked-layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.layers import UnpackedLayerFacts
    from kbitlint.facts.model import ModelFacts
    from kbitlint.facts.trace import TraceFacts


EIGHT = 8


class UnpackedLayer(Rule):
    """A layer of a quantizing class that holds an ordinary float weight.

    ## What it does

    Reports `Linear4bit` and `Linear8bitLt` layers whose weight was never packed.

    ## Why is this bad?

    A 4-bit layer without a quantization state raises an `AssertionError` without text in the first forward pass. The
    usual cause is a head that is tied to the embedding: the embedding's float weight replaces its packed weight. An
    8-bit layer with such a weight raises an `AttributeError`. A layer that the step does not run is not reported.

    An 8-bit layer keeps its float weight with `llm_int8_has_fp16_weight=True`: a warning. It trains, and takes the
    memory of 16 bits although the model is called 8-bit (32 after PEFT's preparation). A 4-bit layer that was built by
    hand packs its weight when it is moved to a device, and raises until then: also a warning.

    ## Example

    `llm_int8_skip_modules=["k_proj"]` on a model with `tie_word_embeddings=True`: the list replaces the default, which
    names `lm_head`.

    ## Fix

    Name the layer in `llm_int8_skip_modules`. Remove `llm_int8_has_fp16_weight`. Move a layer that was built by hand to
    its device.

    ## Fix safety

    Display only: the model has to be loaded again, or the layer moved.

    ## References

    - https://github.com/huggingface/transformers/issues/45674
    - https://github.com/bitsandbytes-foundation/bitsandbytes/issues/1634
    - https://github.com/axolotl-ai-cloud/axolotl/issues/3953
    """

    meta: ClassVar[Meta] = Meta(
        code="KB506",
        slug="unpacked-layer",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each layer of a quantizing class with a float weight."""
        if not (model.quantized or model.hollow):
            raise Unchecked("no layer is quantized")
        yield from self._reported(model, model.hollow, Surface.MODEL)

    def check_trace(self, trace: TraceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each such layer that the step runs. A loss may read the weight of a head by itself."""
        model = trace.model
        if not (model.quantized or model.hollow):
            raise Unchecked("no layer is quantized")
        run = [layer for layer in model.hollow if trace.failure or layer.path in trace.called]
        yield from self._reported(model, run, Surface.TRACE)

    def _reported(self, model: ModelFacts, layers: Iterable[UnpackedLayerFacts], surface: Surface) -> Iterator[Violation]:
        tied = {path.rpartition(".")[0] for pair in model.tied for path in pair}
        for layer in layers:
            name = layer.path.removesuffix(".base_layer").rpartition(".")[2]
            message, severity, consequence, title = _verdict(layer, name)
            yield self.violation(
                message,
                Location(layer.path),
                surface=surface,
                severity=severity,
                consequence=consequence,
                evidence={"dtype": layer.dtype, "bits": layer.bits, "tied": layer.path in tied},
                fix=Fix(title, Safety.DISPLAY),
            )


def _verdict(layer: UnpackedLayerFacts, name: str) -> tuple[str, Severity, Consequence, str]:
    what = f"{layer.class_name} holds a {layer.dtype} weight that is not packed"
    if layer.bits == EIGHT and not layer.foreign:
        return what, Severity.WARNING, Consequence.COSTS_MEMORY, "load without llm_int8_has_fp16_weight"
    if layer.pending:
        return f"{what} until it is moved to its device", Severity.WARNING, Consequence.FAILS, "move the model to its device"
    return what, Severity.ERROR, Consequence.FAILS, f'llm_int8_skip_modules=[..., "{name}"]'
