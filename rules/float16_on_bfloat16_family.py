"""Rule KB121: float16-on-bfloat16-family."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.source import Action
from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts

#: families that users reported to overflow in float16
OVERFLOWS = re.compile(r"(^|[/_-])(gemma|codegemma|medgemma|paligemma|(m|flan-|u)?t5|byt5)[\w.-]*", re.IGNORECASE)


class Float16OnBfloat16Family(Rule):
    """A model of a family that overflows in float16 is set to compute in float16.

    ## What it does

    Reports `bnb_4bit_compute_dtype=torch.float16`, `dtype=torch.float16` and `torch_dtype=torch.float16` for Gemma, T5
    and its relatives. Activations of these families are known to exceed the range of float16. The rule reads the family
    from the checkpoint's name, and reports nothing if the name is not in the file.

    ## Why is this bad?

    The range of float16 ends at 65504. Activations of these models exceed it and become infinite. The loss is NaN or 0
    from the first steps on. bfloat16 has the range of float32.

    ## Example

    `AutoModelForCausalLM.from_pretrained('google/gemma-2-9b',
    quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float16))`.

    ## Fix

    Use bfloat16.

    ## Fix safety

    Unsafe: the model computes other values, and older GPUs emulate bfloat16. Display only if the argument is not
    written with the word `float16`.

    ## References

    - https://github.com/huggingface/transformers/issues/39972
    - https://github.com/unslothai/unsloth/issues/5074
    - https://github.com/google/gemma_pytorch/issues/24
    """

    meta: ClassVar[Meta] = Meta(
        code="KB121",
        slug="float16-on-bfloat16-family",
        severity=Severity.WARNING,
        consequence=Consequence.UNSTABLE,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each float16 argument in the load of such a checkpoint."""
        seen: set[int] = set()
        for call, steps in source.steps_at(Action.LOAD):
            name = call.value("pretrained_model_name_or_path")
            if not isinstance(name, str) or not OVERFLOWS.search(name):
                continue
            places = [(call, key) for key in ("dtype", "torch_dtype")]
            places += [(step.before.quantization, "bnb_4bit_compute_dtype") for step in steps if step.before.quantization]
            for place, key in places:
                given = place.argument(key)
                if given is None or place.dtype(key) != "float16" or given.span.start in seen:
                    continue
                seen.add(given.span.start)
                written = source.code_of(given.span)
                edits = source.replace(given.span, written.replace("float16", "bfloat16")) if "float16" in written else ()
                yield self.violation(
                    f"{name} computes in float16, whose range its activations leave",
                    source.at_line(given.whole.line, key),
                    surface=Surface.SOURCE,
                    evidence={"checkpoint": name, "argument": key},
                    fix=Fix("use bfloat16", Safety.UNSAFE, edits) if edits else Fix("use bfloat16", Safety.DISPLAY),
                )
