"""Rule KB505: quantized-output-head."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts


def below(path: str) -> str:
    """Return a path without the names that PEFT inserts between a module and the module that it wraps."""
    return path.removesuffix(".base_layer").removesuffix(".original_module")


class QuantizedOutputHead(Rule):
    """The output head of a model is quantized with the rest.

    ## What it does

    Reports a packed output embedding (`lm_head`), and a head of a task (`classifier`) that is packed or holds packed layers.

    ## Why is this bad?

    By default, transformers leaves the head unquantized, because its rounding goes directly into the logits. Passing
    `llm_int8_skip_modules` replaces that default, and the head is packed without a message. Training runs, with the
    losses and logits of a rounded head: an info. A head that is tied to the embedding stays float in a 4-bit layer, and
    the step raises (KB506).

    A task head is new, so it has to be trained, and `LoraConfig(task_type="SEQ_CLS")` raises `only Tensors of floating
    point dtype can require gradients`. transformers packs it by default if it has a bias, as in BERT, RoBERTa and
    DistilBERT: the name it leaves out is then `classifier.bias`. It is a warning, unless LoRA adapts the head itself.

    ## Example

    `BitsAndBytesConfig(load_in_4bit=True, llm_int8_skip_modules=["vision_tower"])`.

    ## Fix

    Add the head to the list.

    ## Fix safety

    Display only: the model has to be loaded again.

    ## References

    - https://github.com/huggingface/transformers/issues/45674
    - https://github.com/huggingface/transformers/pull/45734
    - https://github.com/unslothai/unsloth/issues/4209
    """

    meta: ClassVar[Meta] = Meta(
        code="KB505",
        slug="quantized-output-head",
        severity=Severity.INFO,
        consequence=Consequence.HARMLESS,
        since="0.1.0",
    )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield at most one violation for each output head."""
        if not model.quantized:
            raise Unchecked("no layer is quantized")
        packed = {below(facts.path): facts.packing for facts in model.quantized}
        for head in model.heads:
            place = below(head.path)
            inside = [path for path in packed if path == place or (head.task and path.startswith(f"{place}."))]
            if not inside:
                continue
            packing = packed[inside[0]]
            adapted = any(layer.path in inside for layer in model.adapted)
            untrainable = bool(head.task) and not adapted
            yield self.violation(
                f"head of the task is packed as {packing.kind}: no copy of it can be trained"
                if untrainable
                else f"output head is packed as {packing.kind}: its rounding goes into the logits",
                Location(head.path),
                severity=Severity.WARNING if untrainable else Severity.INFO,
                consequence=Consequence.TRAINS_NOTHING if untrainable else Consequence.HARMLESS,
                evidence={"method": packing.method, "bits": packing.bits, "task": head.task},
                fix=Fix(f'llm_int8_skip_modules=[..., "{below(head.path).rpartition(".")[2]}"]', Safety.DISPLAY),
            )
