"""Rule KB601: dead-target-module."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.source import Action
from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.upstream import families
from kbitlint.upstream.architectures import EXPERT_PROJECTIONS, NAMED_ALIKE, every_name
from kbitlint.upstream.versions import number
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts
    from kbitlint.facts.model_state import ModelState
    from kbitlint.facts.source import SourceFacts
    from kbitlint.facts.values import Call, Span


class DeadTargetModule(Rule):
    """An adapter's config names modules that the model does not have.

    ## What it does

    Reports entries of `target_modules` that are neither the name of a module nor the end of a module path. Reports
    linear layers that the targets match and that have no adapter, as a layer that was replaced later. Reports
    entries of `modules_to_save`, `exclude_modules`, `target_parameters`, `rank_pattern`, `alpha_pattern` and
    `layers_to_transform` that match nothing, as PEFT compares them. An info if a list also names every linear layer.

    ## Why is this bad?

    PEFT raises only if no entry matches. If one matches, PEFT ignores the others without a message, and fewer layers
    learn than the config lists.

    The usual case is experts, which transformers 5 stores as parameters. In Mixtral, `gate_proj`, `up_proj` and
    `down_proj` match nothing, and only the attention gets LoRA. (For Qwen3-MoE and others, PEFT 0.21 converts them.)

    ## Example

    `LoraConfig(target_modules=["q_proj", "gate_proj", "up_proj", "down_proj"])` on Mixtral.

    ## Fix

    For experts, use `LoraConfig(target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"])`. Otherwise
    use the name that the architecture uses.

    ## Fix safety

    Display only: the adapters have to be attached again.

    ## References

    - https://github.com/huggingface/peft/issues/3009
    - https://github.com/huggingface/peft/issues/2527
    """

    meta: ClassVar[Meta] = Meta(
        code="KB601",
        slug="dead-target-module",
        severity=Severity.WARNING,
        consequence=Consequence.TRAINS_NOTHING,
        since="0.1.0",
    )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each name that matches no module."""
        if not model.has_adapters:
            raise Unchecked("no adapters are attached yet")
        banks = [p.path for p in model.parameters if p.bank and not p.adapter]
        for unmatched in model.unmatched:
            title = "name experts in target_parameters" if banks else "name a module of this architecture"
            key, entry = unmatched.key, unmatched.entry
            what = f"name {entry!r}, and {_EFFECTS[key]}" if key in _EFFECTS else "match this layer, and it has no adapter"
            yield self.violation(
                f"{key if key in _EFFECTS else 'target_modules'} of adapter {unmatched.adapter!r} {what}",
                Location(entry),
                evidence={"adapter": unmatched.adapter, "target": entry, "key": key, "fused_experts": len(banks)},
                fix=Fix(title if key == "target_modules" else _TITLES.get(key, _TITLE), Safety.DISPLAY),
            )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each list of targets with a name that the architecture does not have."""
        old = number(source.versions.get("transformers", "5")) < (5,)
        found: dict[Span, list[tuple[Call, tuple[str, ...], bool]]] = {}
        for _, steps in source.steps_at(Action.ATTACH):
            for step in steps:
                config = step.call.within("peft_config")
                if config is not None and config.callee == "peft.LoraConfig":
                    found.setdefault(config.span, []).append((config, *_dead(config, step.before, old=old)))
        for (config, dead, covers), *others in found.values():
            argument = config.argument("target_modules")
            if not dead or argument is None or any(other != dead for _, other, _ in others):
                continue
            generic = covers and all(one for *_, one in others)
            everything = isinstance(argument.value, tuple) and len(dead) == len(argument.value)
            yield self.violation(
                f"no module of this architecture is called {' or '.join(dead)}" + (": PEFT refuses them" if everything else ""),
                source.at_line(argument.whole.line, "target_modules"),
                surface=Surface.SOURCE,
                severity=Severity.ERROR if everything else Severity.INFO if generic else Severity.WARNING,
                consequence=Consequence.FAILS if everything else Consequence.HARMLESS if generic else None,
                evidence={"dead": list(dead)},
                fix=Fix("name a module of this architecture", Safety.DISPLAY),
            )


def _dead(config: Call, model: ModelState, *, old: bool) -> tuple[tuple[str, ...], bool]:
    """Return the targets that name linear layers of other architectures, and whether the others name all of this one.

    There are none if the architecture is not known.
    """
    load, targets = model.load, config.value("target_modules")
    if load is None or not isinstance(targets, tuple) or not all(isinstance(name, str) for name in targets):
        return (), False
    known = families.facts_of(load.value("pretrained_model_name_or_path"), model.named)
    if known.architecture is None or (load.value("trust_remote_code") is not None and known.model_type != "phi"):
        return (), False  # the code of the checkpoint may name its modules otherwise
    if old and known.model_type not in NAMED_ALIKE:
        return (), False
    here = known.architecture.names | set(EXPERT_PROJECTIONS.get(known.architecture.renames, ()))
    all_of_them = not known.architecture.experts and set(known.architecture.linears.split()) <= set(targets)
    return tuple(str(name) for name in targets if name in every_name() and name not in here), all_of_them


_TITLE = "name a module of this architecture"
_TITLES = {
    "left out": "attach the adapters after layers are replaced",
    "target_parameters": "name a parameter of this model",
    "layers_to_transform": "count the layers from 0",
} | dict.fromkeys(("rank_pattern", "alpha_pattern"), "name adapted layers by the end of their path, without ^")
_EFFECTS = {
    "target_modules": "no module is called so",
    "modules_to_save": "no module is called so: nothing is trained as a copy",
    "exclude_modules": "no module is called so: nothing is left out",
    "target_parameters": "no parameter is called so",
    "layers_to_transform": "there is no such layer",
    "rank_pattern": "it matches no adapted layer: r applies",
    "alpha_pattern": "it matches no adapted layer: lora_alpha applies",
}
