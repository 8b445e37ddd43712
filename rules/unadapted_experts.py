"""Rule KB602: unadapted-experts."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.source import Action
from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.upstream import families
from kbitlint.upstream.architectures import EXPERT_PROJECTIONS
from kbitlint.upstream.versions import number
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts
    from kbitlint.facts.source import SourceFacts, Step
    from kbitlint.facts.values import Argument, Call, Span


class UnadaptedExperts(Rule):
    """Adapters are attached, and none of them is on the fused experts.

    ## What it does

    Reports stacks of experts without an adapter in a model with adapters. The evidence states their share of the model.
    In a script, reports a list of target modules without an expert's name, for a checkpoint of a family with experts.

    ## Why is this bad?

    `target_modules` names modules, and fused experts are parameters. Most of the model then has no adapter. (PEFT 0.21
    converts `"all-linear"`, and for some architectures the old names of projections; earlier versions do not.) Training
    works, and LoRA on attention alone is a common choice, so the severity is info.

    ## Example

    `LoraConfig(target_modules=["q_proj", "v_proj", "gate_proj", "up_proj", "down_proj"])` on Mixtral.

    ## Fix

    Use `LoraConfig(target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"], lora_dropout=0.0)`.

    ## Fix safety

    Display only: the user decides which layers learn.

    ## References

    - https://github.com/huggingface/peft/issues/3009
    - https://github.com/huggingface/peft/issues/2527
    - https://github.com/NVIDIA-NeMo/Automodel/issues/1151
    """

    meta: ClassVar[Meta] = Meta(
        code="KB602",
        slug="unadapted-experts",
        severity=Severity.INFO,
        consequence=Consequence.TRAINS_NOTHING,
        since="0.1.0",
    )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each stack of experts without an adapter."""
        if not model.has_adapters:
            raise Unchecked("no adapters are attached yet")
        adapted = tuple(f"{layer.path}." for layer in model.adapted)
        for bank in (p for p in model.parameters if p.bank and not p.adapter):
            if not (bank.path.startswith(adapted) or bank.requires_grad):
                yield self.violation(
                    "fused experts have no adapter",
                    Location(bank.path),
                    evidence={"share": round(bank.numel / model.numel, 4), "shape": list(bank.shape)},
                    fix=None if bank.packed else Fix(_suggestion(bank.path), Safety.DISPLAY),
                )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each adapter config that reaches no expert of the checkpoint on any path."""
        if number(source.versions.get("transformers", "5")) < (5,):
            return
        found: dict[Span, list[Argument | None]] = {}
        for path in source.paths:
            arguments = {training.model_id: training.arguments for training in path.trainings}
            for step in path.steps:
                if step.action is Action.ATTACH:
                    place = _reaches_none(step, arguments.get(step.model_id))
                    found.setdefault(step.call.span, []).append(place)
        reported: set[Span] = set()
        for places in found.values():
            place = places[0]
            if place is not None and place.whole not in reported and all(other is not None for other in places):
                reported.add(place.whole)
                yield self.violation(
                    "the fused experts have no adapter: target_modules names modules, and they are parameters",
                    source.at_line(place.whole.line, place.name),
                    surface=Surface.SOURCE,
                    fix=Fix("name them in target_parameters to adapt them", Safety.DISPLAY),
                )


def _reaches_none(step: Step, arguments: Call | None) -> Argument | None:
    """Return the argument that chooses the adapted modules, if it reaches none of the experts that the checkpoint has."""
    load, config = step.before.load, step.call.within("peft_config")
    if load is None or config is None or config.callee != "peft.LoraConfig":
        return None
    architecture = families.facts_of(load.value("pretrained_model_name_or_path"), step.before.named).architecture
    if architecture is None or not architecture.experts:
        return None
    linear = arguments.argument("lora_target_linear") if arguments is not None else None
    if linear is not None and linear.value is True:
        return linear
    given = config.argument("target_modules")
    names = given.value if given is not None else None
    if not isinstance(names, tuple) or config.gives("target_parameters"):
        return None
    reached = {*EXPERT_PROJECTIONS.get(architecture.renames, ()), *architecture.experts.split()}
    return None if reached & {str(name).rpartition(".")[2] for name in names} else given


def _suggestion(path: str) -> str:
    """Return the setting that adapts the experts. PEFT cannot adapt experts that are packed in place (KB606)."""
    return f'target_parameters=["{path.rpartition(".")[2]}"] in the adapter\'s config'
