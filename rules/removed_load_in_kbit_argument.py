"""KB522."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.source.facts import Action
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.source.facts import SourceFacts


class RemovedLoadInKbitArgument(Rule):
    """Keyword arguments and functions for k-bit loading that were removed.

    ## What it does

    Reports `from_pretrained(..., load_in_4bit=True)` and `load_in_8bit=True` with transformers 5, and
    `prepare_model_for_int8_training` with a PEFT that has dropped it.

    ## Why is this bad?

    transformers 5 hands unknown keywords on to the model's constructor, which raises a TypeError. PEFT removed the
    int8 function in favour of `prepare_model_for_kbit_training`, so importing it fails.

    ## Example

    `AutoModelForCausalLM.from_pretrained(name, load_in_8bit=True, device_map='auto')`.

    ## Fix

    Pass `quantization_config=BitsAndBytesConfig(load_in_8bit=True)`; call `prepare_model_for_kbit_training`.

    ## Fix safety

    Safe for 8 bits: the config means what the keyword meant. Unsafe for 4 bits, where it meant fp4 computed in float32,
    and the config that is written asks for nf4 and bfloat16.

    ## References

    - https://github.com/huggingface/peft/issues/1552
    - https://github.com/allenai/open-instruct/issues/191
    """

    meta: ClassVar[Meta] = Meta(
        code="KB522",
        slug="removed-load-in-kbit-argument",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """One violation for each removed keyword that is given."""
        major = source.versions.get("transformers", "5").partition(".")[0]
        for call, _ in source.steps_at(Action.LOAD):
            for name in ("load_in_4bit", "load_in_8bit"):
                argument = call.argument(name)
                removed = major.isdigit() and int(major) >= 5 and call.callee.startswith("transformers.")
                if argument is None or argument.value is not True or not removed:
                    continue
                config, imported = source.importing("transformers.BitsAndBytesConfig")
                further = ""
                if name == "load_in_4bit":
                    torch, needed = source.importing("torch")
                    further = f', bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype={torch}.bfloat16'
                    imported += needed
                code = f"quantization_config={config}({name}=True{further})"
                inside = call.span.start <= argument.whole.start < call.span.end
                edits = source.replace(argument.whole, code) + imported
                title = "pass a BitsAndBytesConfig"
                safety = Safety.UNSAFE if further else Safety.SAFE
                fixable = inside and call.argument("quantization_config") is None
                yield self.violation(
                    f"from_pretrained takes no {name} any more: a TypeError",
                    source.at_line(argument.whole.line, name),
                    surface=Surface.SOURCE,
                    evidence={"transformers": source.versions.get("transformers")},
                    fix=Fix(title, safety, edits) if fixable else Fix(title, Safety.DISPLAY),
                )
        for name, local in source.imports:
            if name == "peft.prepare_model_for_int8_training":
                yield self.violation(
                    "peft has no prepare_model_for_int8_training any more: an ImportError",
                    source.at_line(source.line_of(local), "import"),
                    surface=Surface.SOURCE,
                    fix=Fix("use prepare_model_for_kbit_training", Safety.DISPLAY),
                )
