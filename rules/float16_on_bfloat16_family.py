"""Rule KB121: float16-on-bfloat16-family."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.upstream.float16_arguments import loaded, names_older_card, trained
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts
    from kbitlint.facts.values import Span
    from kbitlint.upstream.float16_arguments import Place

#: questions about the GPU, on which a script's choice of a dtype depends
_ASKS_GPU = re.compile(r"is_bf16_supported|get_device_capability|is_torch_bf16|is_bfloat16_supported")


class Float16OnBfloat16Family(Rule):
    """A model with weights in bfloat16, or that overflows in float16, is set to compute in float16.

    ## What it does

    Reports `bnb_4bit_compute_dtype=torch.float16`, `dtype=torch.float16`, `torch_dtype=torch.float16` and `fp16=True`. It
    does so for Gemma, T5 and their relatives, whose activations are known to exceed the range of float16, and for quantized
    models of every other family that is published in bfloat16: Llama 3, Mistral, Qwen, Phi 3, Falcon. config.json on this
    machine, or else the checkpoint's name, tells the family. A model that only generates text is not reported.

    All arguments that set one model to float16 are one violation. It is an info where the script asks the GPU and takes
    bfloat16 if it can. For families whose activations are not known to overflow, it is an info where the script, its name or
    a text cell names a card without bfloat16, and none that has it: T4, V100, P100.

    ## Why is this bad?

    The range of float16 ends at 65504. Activations of Gemma and T5 exceed it and become infinite. The loss is NaN or 0
    from the first steps on. The other families were trained in the range of bfloat16, which is that of float32, so nothing
    bounds their activations either.

    ## Example

    `AutoModelForCausalLM.from_pretrained('google/gemma-2-9b',
    quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float16))`.

    ## Fix

    Use bfloat16.

    ## Fix safety

    Unsafe: other values, and older GPUs emulate bfloat16. Display only if an argument is not written as
    `float16`, or if a card without bfloat16 is named, on which Trainer refuses `bf16=True`.

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
        """Yield one violation for each float16 argument in the load of such a checkpoint, or in its training."""
        found: dict[Span, list[tuple[Place, bool]]] = {}
        for path in source.paths:
            for place in loaded(source, path):
                found.setdefault(place.argument.whole, []).append((place, place.dtype == "float16"))
            for place in trained(path):
                found.setdefault(place.argument.whole, []).append((place, True))
        seen: dict[tuple[object, ...], list[Violation]] = {}
        for places in found.values():
            if any(narrow for _, narrow in places):
                one = self._violation(source, places)
                seen.setdefault((one.message, one.severity, one.at.file), []).append(one)
        for alike in seen.values():
            yield alike[0] if len(alike) == 1 else self._together(alike)

    def _violation(self, source: SourceFacts, places: list[tuple[Place, bool]]) -> Violation:
        place = next(place for place, narrow in places if narrow)
        given, depends = place.argument, not all(narrow for _, narrow in places)
        asks = depends and _ASKS_GPU.search(source.text) is not None
        older = not place.overflows and names_older_card(source)
        written = source.code_of(given.span)
        edits = source.replace(given.span, written.replace("float16", "bfloat16")) if "float16" in written else ()
        if given.name == "fp16":
            edits = source.rename_argument(given, "bf16") if written == "True" else ()
        why = "whose range its activations leave" if place.overflows else "and its weights are bfloat16, whose range is wider"
        where = " where the GPU has no bfloat16" if asks else " on some paths" if depends else ""
        edits = () if older else edits  # Trainer refuses bf16=True on such a card
        where = where or (" on a card without bfloat16" if older else "")
        return self.violation(
            f"{place.checkpoint} computes in float16{where}, {why}",
            source.at_line(given.whole.line, given.name),
            surface=Surface.SOURCE,
            severity=Severity.INFO if asks or older else None,
            evidence={"checkpoint": place.checkpoint, "argument": given.name},
            fix=Fix("use bfloat16", Safety.UNSAFE, edits) if edits else Fix("use bfloat16", Safety.DISPLAY),
        )

    def _together(self, alike: list[Violation]) -> Violation:
        """Return one violation for all arguments that set a model to float16, at the first of them."""
        alike = sorted(alike, key=lambda one: one.at.line or 0)
        first = alike[0]
        names = list(dict.fromkeys(str(one.evidence["argument"]) for one in alike))
        fixes = [one.fix.edits for one in alike if one.fix is not None and one.fix.edits]
        edits = tuple(edit for one in fixes for edit in one) if len(fixes) == len(alike) else ()
        return self.violation(
            f"{first.message} ({', '.join(names)})",
            first.at,
            surface=Surface.SOURCE,
            severity=first.severity,
            evidence={**first.evidence, "arguments": names},
            fix=Fix("use bfloat16", Safety.UNSAFE if edits else Safety.DISPLAY, edits),
        )
