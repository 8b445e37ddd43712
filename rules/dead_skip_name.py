"""Rule KB124: dead-skip-name."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.source import Action
from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.upstream import families
from kbitlint.upstream.versions import number
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts
    from kbitlint.facts.model_state import ModelState
    from kbitlint.facts.source import SourceFacts
    from kbitlint.facts.values import Call, Span


#: parts of models of images and sound, as scripts name them
TOWERS = (
    *("visual", "vision_tower", "vision_model", "vision_embed_tokens", "multi_modal_projector", "mm_projector", "connector"),
    *("audio_tower", "language_model", "image_tower", "video_tower", "aligner", "vision_encoder", "vision_projection"),
)


class DeadSkipName(Rule):
    """A name in `llm_int8_skip_modules` that matches no module, while layers below that name are packed.

    ## What it does

    Compares each entry of `llm_int8_skip_modules` in the model's config with the module paths, as transformers does.
    Reports entries that spare no linear layer while packed layers have the name in their path: a warning. An entry that
    matches no module at all is an info.

    In a script, reports the short name of a part, such as `visual`, if the checkpoint's family has the part below `model.`.

    ## Why is this bad?

    transformers 5 matches an entry from the start of a path or at its end. `vision_tower` matches neither
    `model.vision_tower.encoder...` nor its layers, so the tower is packed although the list names it. The list also
    replaces the default, so the output head is packed too.

    ## Example

    `BitsAndBytesConfig(load_in_4bit=True, llm_int8_skip_modules=["vision_tower"])` on LLaVA.

    ## Fix

    Write the whole path, `model.vision_tower`, or a pattern, `.*vision_tower`, and add `lm_head`.

    ## Fix safety

    Unsafe in a script: the part stays in 16 bits and needs more memory. Display only for a model, which has to be loaded again.

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

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each dead name of a list that every load with it shares."""
        if number(source.versions.get("transformers", "5")) < (5,):
            return
        found: dict[Span, tuple[Call, dict[str, str]]] = {}
        for _, steps in source.steps_at(Action.LOAD):
            for step in steps:
                config = step.before.quantization
                if config is not None:
                    dead = _dead(config, step.before)
                    _, others = found.get(config.span, (config, dead))
                    found[config.span] = config, dead if dead == others else {}
        for config, names in found.values():
            argument = config.argument("llm_int8_skip_modules")
            for name, meant in names.items():
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
