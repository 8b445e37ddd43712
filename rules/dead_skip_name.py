"""Rule KB124: dead-skip-name."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts


class DeadSkipName(Rule):
    """A name in `llm_int8_skip_modules` that matches no module, while layers below that name are packed.

    ## What it does

    Compares each entry of `llm_int8_skip_modules` in the model's config with the module paths, as transformers does.
    Reports entries that spare no linear layer while packed layers have the name in their path: a warning. An entry that
    matches no module at all is an info.

    ## Why is this bad?

    transformers 5 matches an entry from the start of a path or at its end. `vision_tower` matches neither
    `model.vision_tower.encoder...` nor its layers, so the tower is packed although the list names it. The list also
    replaces the default, so the output head is packed too.

    ## Example

    `BitsAndBytesConfig(load_in_4bit=True, llm_int8_skip_modules=["vision_tower"])` on LLaVA.

    ## Fix

    Write the whole path, `model.vision_tower`, or a pattern, `.*vision_tower`, and add `lm_head`.

    ## Fix safety

    Display only: the model has to be loaded again.

    ## References

    - https://github.com/unslothai/unsloth/issues/4209
    - https://github.com/huggingface/transformers/issues/24037
    - https://github.com/vllm-project/llm-compressor/issues/2597
    """

    meta: ClassVar[Meta] = Meta(
        code="KB124",
        slug="dead-skip-name",
        severity=Severity.WARNING,
        consequence=Consequence.UNSTABLE,
        since="0.1.0",
    )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each entry that leaves nothing out."""
        if not model.quantized:
            raise Unchecked("no layer is quantized")
        for skip in model.dead_skips:
            below = f", and {skip.packed} layers below it are packed" if skip.packed else ""
            yield self.violation(
                f"llm_int8_skip_modules names {skip.name!r}, which spares no layer{below}",
                Location(skip.first.partition(f"{skip.name}.")[0] + skip.name if skip.first else skip.name),
                severity=Severity.WARNING if skip.packed else Severity.INFO,
                consequence=Consequence.UNSTABLE if skip.packed else Consequence.HARMLESS,
                evidence={"name": skip.name, "packed": skip.packed, "first": skip.first},
                fix=Fix(f'name the whole path, or ".*{skip.name}", and lm_head', Safety.DISPLAY),
            )
