"""Rule KB523: skip-list-without-head."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint import lazy_patterns as re
from kbitlint.facts.source import Action
from kbitlint.rule import Meta, Rule
from kbitlint.upstream.packed_heads import why_it_fails
from kbitlint.violation import Consequence, Edit, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.checkpoint import CheckpointFacts
    from kbitlint.facts.source import SourceFacts
    from kbitlint.facts.values import Span

KEY = "quantization_config.llm_int8_skip_modules"
_WRITES = re.compile("ForCausalLM|ForConditionalGeneration|Seq2SeqLM|Vision2Seq|ToText|LMHead|MaskedLM|MultimodalLM")
#: the names of output heads
HEADS = ("lm_head", "embed_out", "output_layer", "score", "classifier", "head")


def _names(value: object) -> tuple[str, ...]:
    """Return the strings of a list; empty if the list is not known."""
    known = isinstance(value, tuple) and all(isinstance(item, str) for item in value)
    return tuple(str(item) for item in value) if known and isinstance(value, tuple) else ()


def _without_output_head(source: SourceFacts) -> set[Span]:
    """Return the configs that the file uses only for classes without an output head; KB528 covers task heads."""
    used: dict[Span, bool] = {}
    for call, steps in source.steps_at(Action.LOAD):
        writes = _WRITES.search(call.callee) is not None or "from_pretrained" not in call.callee
        for config in (step.before.quantization for step in steps):
            if config is not None:
                used[config.span] = used.get(config.span, False) or writes
    return {span for span, writes in used.items() if not writes}


def _has_head(names: tuple[str, ...]) -> bool:
    return any(name.rpartition(".")[2] in HEADS for name in names)


class SkipListWithoutHead(Rule):
    """A list of modules to leave unquantized that omits the output head.

    ## What it does

    Reports `llm_int8_skip_modules` without `lm_head` (or another head name), in a script and in the `quantization_config` of
    config.json. It is an error if the head is tied to the embeddings, or if a script's adapter config saves `lm_head`, or if a
    script resizes the embeddings of a 4-bit model. It is a warning otherwise. TRL's trainers may read the weight of a tied head
    without its layer, so that their scripts get the warning.

    ## Why is this bad?

    By default the output head and tied weights stay in 16 bits. A list replaces that default. An untied head is then packed to
    4 bits without a message. A tied head stays a 16-bit matrix inside a 4-bit layer, and the first forward pass raises an
    AssertionError. With `modules_to_save=['lm_head']`, PEFT raises when the copy of a packed head is made to require grad.

    ## Example

    `BitsAndBytesConfig(load_in_4bit=True, llm_int8_skip_modules=['vision_tower'])`.

    ## Fix

    Add `lm_head` to the list.

    ## Fix safety

    Unsafe: the head is computed in 16 bits again. Display only if the argument is not written as a list.

    ## References

    - https://github.com/huggingface/transformers/issues/45674
    - https://github.com/axolotl-ai-cloud/axolotl/issues/3953
    - https://github.com/bitsandbytes-foundation/bitsandbytes/issues/1634
    """

    meta: ClassVar[Meta] = Meta(
        code="KB523",
        slug="skip-list-without-head",
        severity=Severity.WARNING,
        consequence=Consequence.UNSTABLE,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each skip list without a head."""
        saved = {name for call in source.calls_of("peft.LoraConfig") for name in _names(call.value("modules_to_save"))}
        headless = _without_output_head(source)
        forms = (form for forms in source.forms_of("transformers.BitsAndBytesConfig") for form in forms)
        passed = {argument.whole: form for form in forms if (argument := form.argument("llm_int8_skip_modules")) is not None}
        for call in passed.values():
            names = _names(call.value("llm_int8_skip_modules"))
            argument = call.argument("llm_int8_skip_modules")
            if argument is None or not names or _has_head(names) or call.span in headless:
                continue
            written = source.code_of(argument.span)
            edits = (
                source.replace(argument.span, f'{written[:-1].rstrip().rstrip(",")}, "lm_head"]')
                if written.endswith("]")
                else ()
            )
            why = ", and modules_to_save cannot train a packed head" if "lm_head" in saved else why_it_fails(source, call)
            fails = bool(why)
            yield self.violation(
                f"the output head is quantized too: the skip list replaces the default one{why}",
                source.at_line(argument.whole.line, "llm_int8_skip_modules"),
                surface=Surface.SOURCE,
                severity=Severity.ERROR if fails else Severity.WARNING,
                consequence=Consequence.FAILS if fails else None,
                evidence={"skipped": list(names)},
                fix=Fix("add lm_head", Safety.UNSAFE, edits) if edits else Fix("add lm_head", Safety.DISPLAY),
            )

    def check_files(self, checkpoint: CheckpointFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield at most one violation, on the key of config.json."""
        quantization = checkpoint.quantization or {}
        names = quantization.get("llm_int8_skip_modules")
        if quantization.get("quant_method") != "bitsandbytes" or not isinstance(names, list) or not names:
            return
        if _has_head(tuple(str(name) for name in names)):
            return
        edit = Edit("set-json-key", "config.json", {"key": KEY, "value": [*names, "lm_head"]})
        tied = (checkpoint.config or {}).get("tie_word_embeddings") is True
        yield self.violation(
            "the output head is quantized too: the skip list replaces the default one"
            + (", and the head is tied to the embeddings" if tied else ""),
            Location(KEY, "config.json"),
            surface=Surface.FILES,
            severity=Severity.ERROR if tied else Severity.WARNING,
            consequence=Consequence.FAILS if tied else None,
            evidence={"skipped": names, "tied": tied},
            fix=Fix("add lm_head", Safety.UNSAFE, (edit,)),
        )
