"""Rule KB502: float32-compute-dtype."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.dtypes import LOW_PRECISION
from kbitlint.facts.source import Action
from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.upstream.misspelt import misspelt_arguments
from kbitlint.violation import Consequence, Edit, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.checkpoint import CheckpointFacts
    from kbitlint.facts.model import ModelFacts
    from kbitlint.facts.source import SourceFacts

_KEY = "quantization_config.bnb_4bit_compute_dtype"


def _json_edit(dtype: str) -> Edit:
    return Edit("set-json-key", "config.json", {"key": _KEY, "value": dtype})


class Float32ComputeDtype(Rule):
    """Quantized layers of a half-precision model that multiply in float32.

    ## What it does

    Reports bitsandbytes 4-bit layers whose compute dtype is float32 while other weights of the model are float16 or
    bfloat16. It checks models and the `quantization_config` of config.json.

    In a script, reports 4-bit configs without `bnb_4bit_compute_dtype` (warning) or with float32 (info), unless the
    model is loaded in float32.

    ## Why is this bad?

    `bnb_4bit_compute_dtype` defaults to float32, and transformers always passes the default on. Every 4-bit layer then
    casts its input to float32 and multiplies without the tensor cores' half-precision rate. bitsandbytes has a warning
    for this, but transformers builds the layers in a way that never triggers it.

    ## Example

    `BitsAndBytesConfig(load_in_4bit=True)` on a bfloat16 checkpoint.

    ## Fix

    Use the model's own dtype as compute dtype; in a script, bfloat16.

    ## Fix safety

    Unsafe: the products are rounded to the narrower dtype, so logits change by more than float32 rounding.

    ## References

    - https://github.com/bitsandbytes-foundation/bitsandbytes/issues/2077
    - https://github.com/bitsandbytes-foundation/bitsandbytes/issues/1177
    - https://github.com/huggingface/alignment-handbook/issues/107
    """

    meta: ClassVar[Meta] = Meta(
        code="KB502",
        slug="float32-compute-dtype",
        severity=Severity.WARNING,
        consequence=Consequence.COSTS_TIME,
        since="0.1.0",
    )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each 4-bit layer that computes in float32 beside half-precision weights."""
        layers = [facts for facts in model.quantized if facts.packing.method == "bitsandbytes" and facts.packing.bits == 4]
        if not layers:
            raise Unchecked("no bitsandbytes 4-bit layers")
        rest = sorted({p.dtype for p in model.parameters if p.dtype in LOW_PRECISION and not (p.adapter or p.packed or p.norm)})
        for layer in layers:
            if layer.packing.compute_dtype == "float32" and rest:
                fix = Fix(f"compute in {rest[0]}", Safety.UNSAFE, (Edit("compute-dtype", layer.path, {"dtype": rest[0]}),))
                yield self.violation(
                    f"4-bit layers multiply in float32 while the model is {rest[0]}",
                    Location(layer.path),
                    evidence={"compute_dtype": "float32", "model_dtypes": rest},
                    fix=fix,
                )

    def check_files(self, checkpoint: CheckpointFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield at most one violation, on the key of config.json."""
        quantization = checkpoint.quantization
        if quantization is None:
            raise Unchecked("config.json names no quantization_config")
        four_bit = quantization.get("load_in_4bit") is True and quantization.get("quant_method") == "bitsandbytes"
        if four_bit and quantization.get("bnb_4bit_compute_dtype") == "float32" and checkpoint.dtype in LOW_PRECISION:
            yield self.violation(
                f"4-bit layers multiply in float32 while the model is {checkpoint.dtype}",
                Location(_KEY, "config.json"),
                surface=Surface.FILES,
                evidence={"compute_dtype": "float32", "dtype": checkpoint.dtype},
                fix=Fix(f'set it to "{checkpoint.dtype}"', Safety.UNSAFE, (_json_edit(str(checkpoint.dtype)),)),
            )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each 4-bit config without a compute dtype or with float32, unless the model is float32."""
        wide = {
            step.before.quantization
            for _, steps in source.steps_at(Action.LOAD)
            for step in steps
            if step.before.dtype == "float32"
        }
        for call in source.calls_of("transformers.BitsAndBytesConfig"):
            if call.value("load_in_4bit") is not True or call in wide:
                continue
            if "bnb_4bit_compute_dtype" in misspelt_arguments(call):
                continue  # the misspelt name is the cause, and another rule's
            dtype = call.dtype("bnb_4bit_compute_dtype")
            if dtype not in (None, "float32"):
                continue
            name, imported = source.importing("torch", call.span)
            edits = source.set_argument(call, "bnb_4bit_compute_dtype", f"{name}.bfloat16") + imported
            yield self.violation(
                "4-bit layers multiply in float32"
                + (": bnb_4bit_compute_dtype is not given" if dtype is None else ", as bnb_4bit_compute_dtype asks"),
                source.at(call),
                surface=Surface.SOURCE,
                severity=Severity.WARNING if dtype is None else Severity.INFO,
                evidence={"compute_dtype": "float32"},
                fix=Fix("compute in bfloat16", Safety.UNSAFE, edits),
            )
