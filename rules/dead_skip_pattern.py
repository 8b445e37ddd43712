"""Rule KB531: dead-skip-pattern."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.source import Action
from kbitlint.rule import Meta, Rule
from kbitlint.upstream import families
from kbitlint.upstream.versions import number
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model_state import ModelState
    from kbitlint.facts.source import SourceFacts
    from kbitlint.facts.values import Call

#: parts of models of images and sound, as scripts name them
TOWERS = (
    *("visual", "vision_tower", "vision_model", "vision_embed_tokens", "multi_modal_projector", "mm_projector", "connector"),
    *("audio_tower", "language_model", "image_tower", "video_tower", "aligner", "vision_encoder", "vision_projection"),
)


class DeadSkipPattern(Rule):
    """A name in the list of modules to leave unquantized that no module of transformers 5 has.

    ## What it does

    Reports `llm_int8_skip_modules` with a part of a vision or audio model by its old, short name. The rule knows the names of
    the checkpoint's architecture from its config.json on this machine, or from its name.

    ## Why is this bad?

    transformers 5 matches a pattern from the start of a module's name, or at its end. Since `visual` became `model.visual`, the
    pattern `visual` matches nothing. The tower is quantized without a message, although it was meant to stay in 16 bits.

    ## Example

    `BitsAndBytesConfig(load_in_4bit=True, llm_int8_skip_modules=["visual", "lm_head"])` for Qwen2.5-VL.

    ## Fix

    Write the name from the start: `model.visual`.

    ## Fix safety

    Unsafe: the tower stays in 16 bits and needs more memory. Display only if the name is not written in the list.

    ## References

    - https://github.com/huggingface/transformers/issues/45674
    - https://github.com/vllm-project/llm-compressor/pull/1766
    - https://github.com/unslothai/unsloth/pull/4209
    """

    meta: ClassVar[Meta] = Meta(
        code="KB531",
        slug="dead-skip-pattern",
        severity=Severity.WARNING,
        consequence=Consequence.TRAINS_WRONG,
        since="0.2.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each dead name of a list that every load with it shares."""
        if number(source.versions.get("transformers", "5")) < (5,):
            return
        found: dict[Call, dict[str, str] | None] = {}
        for _, steps in source.steps_at(Action.LOAD):
            for step in steps:
                config = step.before.quantization
                if config is not None:
                    dead = _dead(config, step.before)
                    found[config] = dead if found.get(config, dead) == dead else None
        for config, names in found.items():
            argument = config.argument("llm_int8_skip_modules")
            for name, meant in (names or {}).items() if argument is not None else ():
                written = source.code_of(argument.span) if argument is not None else ""
                quoted = next((quote + name + quote for quote in "\"'" if quote + name + quote in written), "")
                edits = (
                    source.replace(argument.span, written.replace(quoted, quoted[0] + meant + quoted[0]))
                    if quoted and argument
                    else ()
                )
                yield self.violation(
                    f"no module's name starts with {name}, so nothing is left out: it is {meant}",
                    source.at_line(argument.whole.line if argument else 1, "llm_int8_skip_modules"),
                    surface=Surface.SOURCE,
                    evidence={"pattern": name, "meant": meant},
                    fix=Fix(f"write {meant}", Safety.UNSAFE, edits) if edits else Fix(f"write {meant}", Safety.DISPLAY),
                )


def _dead(config: Call, model: ModelState) -> dict[str, str]:
    """Return the names of the skip list that match no module, each with the name that is meant."""
    load, names = model.load, config.value("llm_int8_skip_modules")
    if load is None or not isinstance(names, tuple) or load.value("trust_remote_code") is True:
        return {}
    architecture = families.facts_of(load.value("pretrained_model_name_or_path"), model.named).architecture
    if architecture is None:
        return {}
    parts = architecture.parts.split()
    ends = {part.rpartition(".")[2]: part for part in parts if part.startswith("model.")}
    starts = {part.partition(".")[0] for part in parts}
    return {str(name): ends[str(name)] for name in names if name in TOWERS and name in ends and name not in starts}
