"""KB506."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts, UnpackedLayerFacts


EIGHT = 8


class UnpackedLayer(Rule):
    """A layer of a quantizing class holds an ordinary float weight.

    ## What it does

    Reports `Linear4bit` and `Linear8bitLt` layers whose weight was never packed, in a model that is otherwise or by its
    records quantized.

    ## Why is this bad?

    A 4-bit layer without a quantization state raises an `AssertionError` with no text in the first forward pass. It
    arises where a head that is tied to the embedding is converted, and its packed weight then replaced by the embedding's.
    An 8-bit layer keeps its float weight with `llm_int8_has_fp16_weight=True`: it trains, and takes the memory of 16 bits
    (32 after PEFT's prepare, which casts them) although the model is called 8-bit. A 4-bit layer that somebody built by
    hand packs its weight when it is moved to a device, and raises before.

    ## Example

    `llm_int8_skip_modules=["k_proj"]` on a model with `tie_word_embeddings=True`: the list replaces the default, which
    names `lm_head`.

    ## Fix

    Name the layer in `llm_int8_skip_modules`; leave out `llm_int8_has_fp16_weight`.

    ## Fix safety

    Nothing is applied: the model has to be loaded again.

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
        """One violation for each layer that is not what its class says."""
        if not (model.quantized or model.hollow):
            raise Unchecked("no layer is quantized")
        tied = {path.rpartition(".")[0] for pair in model.tied for path in pair}
        for layer in model.hollow:
            name = layer.path.removesuffix(".base_layer").rpartition(".")[2]
            message, severity, consequence, title = _verdict(layer, name)
            yield self.violation(
                message,
                Location(layer.path),
                severity=severity,
                consequence=consequence,
                evidence={"dtype": layer.dtype, "bits": layer.bits, "tied": layer.path in tied},
                fix=Fix(title, Safety.DISPLAY),
            )


def _verdict(layer: UnpackedLayerFacts, name: str) -> tuple[str, Severity, Consequence, str]:
    what = f"{layer.class_name} holds a {layer.dtype} weight that is not packed"
    if layer.bits == EIGHT:
        return what, Severity.WARNING, Consequence.COSTS_MEMORY, "load without llm_int8_has_fp16_weight"
    if layer.pending:
        return f"{what} until it is moved to its device", Severity.WARNING, Consequence.FAILS, "move the model to its device"
    return what, Severity.ERROR, Consequence.FAILS, f'llm_int8_skip_modules=[..., "{name}"]'
