"""Rule KB509: packed-copy-to-save."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.source import Action
from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.upstream.architectures import INNER_LINEARS
from kbitlint.upstream.families import facts_of
from kbitlint.upstream.layer_paths import CONNECTORS
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.checkpoint import CheckpointFacts
    from kbitlint.facts.model import ModelFacts
    from kbitlint.facts.model_state import ModelState
    from kbitlint.facts.source import SourceFacts


class PackedCopyToSave(Rule):
    """A module in `modules_to_save` is quantized, so its copy can never be trained.

    ## What it does

    Reports copies that PEFT made of packed layers. In a script, reports `modules_to_save` with the name of a linear layer of
    the checkpoint's family, also as the end of a path that the script builds, or of the projector behind an image tower. The
    model is quantized, and its list of modules to skip does not name the layer.

    Also reports a packed weight in the file of a saved adapter.

    ## Why is this bad?

    For each module in `modules_to_save`, PEFT trains a copy. Integers have no gradient. With a new adapter,
    `get_peft_model` raises `only Tensors of floating point dtype can require gradients`. With an adapter that is loaded
    frozen, PEFT makes the copy, and unfreezing it raises. The copy holds the rounded weight of the base, not the
    trained weight.

    ## Example

    `PeftModel.from_pretrained(base, folder)` with `modules_to_save=["score"]`. The `score` of the base is packed,
    because a list of modules to skip replaced the default.

    ## Fix

    Leave the module out of quantization.

    ## Fix safety

    Display only: the model has to be loaded again.

    ## References

    - https://github.com/huggingface/peft/issues/1720
    - https://github.com/huggingface/peft/issues/1222
    - https://github.com/huggingface/peft/issues/602
    """

    meta: ClassVar[Meta] = Meta(
        code="KB509",
        slug="packed-copy-to-save",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )

    def check_files(self, checkpoint: CheckpointFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each packed weight in the file of an adapter."""
        from kbitlint.facts.checkpoint import packed_in  # an audit of a script needs none of these facts

        if not checkpoint.adapter_tensors:
            raise Unchecked("no adapter_model.safetensors here")
        for weight in packed_in(checkpoint.adapter_tensors):
            yield self.violation(
                "the adapter's file holds a packed weight: the copy to save was quantized and never trained",
                Location(weight, "adapter_model.safetensors"),
                surface=Surface.FILES,
                consequence=Consequence.TRAINS_NOTHING,
                fix=Fix('load the base with llm_int8_skip_modules=["lm_head", ...], and train again', Safety.DISPLAY),
            )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each config that saves a linear layer which is packed on every path."""
        for call, steps in source.steps_at(Action.ATTACH):
            config = call.within("peft_config")
            saved = config.argument("modules_to_save") if config is not None else None
            packed = frozenset.intersection(*(_packed(step.before) for step in steps))
            given = saved.value if saved and isinstance(saved.value, tuple) else ()
            if config is not None and not given:
                faults = (one for one in source.object_faults if one.kind == "copied" and one.line == config.span.line)
                given = tuple(one.name for one in faults)
            names = [name for name in given if str(name).rpartition(".")[2] in packed]
            if saved is not None and names:
                yield self.violation(
                    f"{names[0]} is to be trained as a copy, and is packed",
                    source.at_line(saved.whole.line, "modules_to_save"),
                    surface=Surface.SOURCE,
                    fix=Fix(
                        f'target it with adapters, or load with llm_int8_skip_modules=["{names[0]}", "lm_head"]', Safety.DISPLAY
                    ),
                )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each packed copy."""
        if not model.has_adapters:
            raise Unchecked("no adapters are attached yet")
        for facts in model.quantized:
            module, between, adapter = facts.path.rpartition(".modules_to_save.")
            if between:
                name = module.rpartition(".")[2]
                yield self.violation(
                    f"{name} is to be trained as a copy, and is packed as {facts.packing.kind}",
                    Location(facts.path),
                    evidence={"adapter": adapter, "method": facts.packing.method, "bits": facts.packing.bits},
                    fix=Fix(f'load with llm_int8_skip_modules=["{name}", "lm_head"]', Safety.DISPLAY),
                )


#: what transformers leaves out by default: output embeddings, tied to the embeddings or not
_OUTPUT_HEADS = ("lm_head", "embed_out", "proj_out", "output_layer")


def _packed(model: ModelState) -> frozenset[str]:
    """Return the names of the linear layers of a model that are certainly packed."""
    load, config = model.load, model.quantization
    skipped = config.value("llm_int8_skip_modules") if config is not None else None
    kept = config is not None and config.value("llm_int8_has_fp16_weight") is not None
    if load is None or not model.packed or not model.certain or kept:
        return frozenset()
    if not (skipped is None or isinstance(skipped, tuple)):
        return frozenset()
    known = facts_of(load.value("pretrained_model_name_or_path"), model.named)
    names = known.architecture.names if known.architecture is not None else INNER_LINEARS
    parts = {CONNECTORS[known.model_type]} if known.model_type in CONNECTORS else set()
    left = skipped or _OUTPUT_HEADS
    return (frozenset(names) | parts) - {part for name in left for part in str(name).split(".")}
