"""Rule KB532: refused-expert-targets."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.source import Action
from kbitlint.rule import Meta, Rule
from kbitlint.upstream import families
from kbitlint.upstream.architectures import EXPERT_PROJECTIONS, FUSED_PAIRS
from kbitlint.upstream.versions import number
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model_state import ModelState
    from kbitlint.facts.source import SourceFacts
    from kbitlint.facts.values import Call, Span


class RefusedExpertTargets(Rule):
    """Target modules of an adapter that name experts, in a way that PEFT refuses for fused experts.

    ## What it does

    Reports `target_modules` with names of experts, or `all-linear`, for a checkpoint whose experts transformers 5 stacks. It
    does so if `lora_dropout` is not 0, or if only one of two fused projections is named. The rule knows the architecture from
    the checkpoint's config.json on this machine, or from its name.

    ## Why is this bad?

    PEFT 0.21 turns these names into `target_parameters`. An adapter of a parameter has no place for dropout and raises a
    ValueError. The fused projections share one parameter, so one of them alone raises too.

    ## Example

    `LoraConfig(target_modules=["q_proj", "w1", "w2", "w3"], lora_dropout=0.05)` on Mixtral.

    ## Fix

    Set `lora_dropout=0.0`, or name attention only. Name both fused projections.

    ## Fix safety

    Unsafe: without dropout the adapters train otherwise. Display only for a missing projection.

    ## References

    - https://github.com/huggingface/peft/pull/2638
    - https://github.com/huggingface/peft/issues/3009
    """

    meta: ClassVar[Meta] = Meta(
        code="KB532",
        slug="refused-expert-targets",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.2.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each adapter config that PEFT refuses for the checkpoint on every path."""
        new = number(source.versions.get("peft", "1")) >= (0, 19) and number(source.versions.get("transformers", "5")) >= (5,)
        found: dict[Span, list[tuple[Call, tuple[str, str]]]] = {}
        for _, steps in source.steps_at(Action.ATTACH) if new else ():
            for step in steps:
                config = step.call.within("peft_config")
                if config is not None and config.callee == "peft.LoraConfig":
                    found.setdefault(config.span, []).append((config, _refused(config, step.before)))
        for (config, (name, why)), *others in found.values():
            argument = config.argument(name)
            if not why or argument is None or any(reason != (name, why) for _, reason in others):
                continue
            dropout = config.argument("lora_dropout")
            edits = (
                source.replace(dropout.span, "0.0")
                if dropout is not None and name == "target_modules" and "dropout" in why
                else ()
            )
            yield self.violation(
                why,
                source.at_line(argument.whole.line, name),
                surface=Surface.SOURCE,
                evidence={"lora_dropout": dropout.value if dropout is not None else 0.0},
                fix=Fix("set lora_dropout to 0.0", Safety.UNSAFE, edits)
                if edits
                else Fix("name all projections", Safety.DISPLAY),
            )


def _refused(config: Call, model: ModelState) -> tuple[str, str]:
    """Return the argument that PEFT refuses, and why; two empty texts if it refuses none."""
    load, targets = model.load, config.value("target_modules")
    if load is None or load.value("trust_remote_code") is True:
        return "", ""
    architecture = families.facts_of(load.value("pretrained_model_name_or_path"), model.named).architecture
    experts = EXPERT_PROJECTIONS.get(architecture.renames, ()) if architecture is not None else ()
    names = {str(name).rpartition(".")[2] for name in targets} if isinstance(targets, tuple) else set()
    everything = isinstance(targets, str) and targets.lower() == "all-linear"
    dropout = config.value("lora_dropout", 0.0)
    if not experts or architecture is None or not (everything or names & set(experts)):
        return "", ""
    pair = FUSED_PAIRS[architecture.renames]
    if len(names & set(pair)) == 1:
        return (
            "target_modules",
            f"{' and '.join(pair)} are fused into one parameter, and only one of them is named: a ValueError",
        )
    if isinstance(dropout, (int, float)) and dropout:
        return "target_modules", "the experts are adapted as parameters, which takes no lora_dropout: a ValueError"
    return "", ""
