"""Rule KB205: untied-copy."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.source import Action
from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts
    from kbitlint.facts.source import SourceFacts
    from kbitlint.facts.values import Call

#: the names that PEFT inserts between a module and the module that it wraps
_BETWEEN = ("base_layer", "original_module", "token_adapter")


TITLE = "ensure_weight_tying=True in the adapter's config"


class UntiedCopy(Rule):
    """Embeddings and head are tied, and hold two tensors, or an adapter trains them apart.

    ## What it does

    Reports tied weights of the base model, if an adapter trains a copy that the other module does not share. Copies come from
    `modules_to_save`, LoRA and trainable tokens. Also reports a head and an embedding that the config ties and that are two
    tensors, as `lm_head.weight = nn.Parameter(lm_head.weight.float())` leaves them.

    In a script, reports `modules_to_save` with `embed_tokens` or `lm_head`, if the checkpoint's config.json on this machine
    ties them.

    ## Why is this bad?

    Both modules start with one tensor and diverge with the first step. The config still records that they are tied. Code that
    relies on it (exporters, GGUF converters, an older `merge_and_unload`) keeps one and drops what the other learned. If both
    are listed, they use twice the memory and optimizer state.

    ## Example

    `LoraConfig(modules_to_save=["embed_tokens", "lm_head"])` on a model with `tie_word_embeddings=True`.

    ## Fix

    Set `ensure_weight_tying=True` (PEFT 0.18 and later), or use `trainable_token_indices`: both keep the modules tied. Or set
    `tie_word_embeddings=False` on purpose.

    ## Fix safety

    Unsafe in a script, where `ensure_weight_tying=True` is added: one copy is trained then. Display only for a model.

    ## References

    - https://github.com/huggingface/peft/issues/2777
    - https://github.com/huggingface/peft/issues/2864
    - https://github.com/huggingface/peft/issues/2025
    """

    meta: ClassVar[Meta] = Meta(
        code="KB205",
        slug="untied-copy",
        severity=Severity.WARNING,
        consequence=Consequence.TRAINS_WRONG,
        since="0.1.0",
    )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each tied pair whose trained copies are not tied."""
        for head, embedding in model.untied:
            yield self.violation(
                f"the config ties it to {embedding}, and they are two tensors: saving keeps one of them",
                Location(head),
                evidence={"tied": [head, embedding]},
                fix=Fix("model.tie_weights(), and cast a tied weight through .data", Safety.DISPLAY),
            )
        if not model.has_adapters and not model.untied:
            raise Unchecked("no adapters are attached yet")
        copies = {further for further, _ in model.tied}
        for further, first in model.tied:
            one, other = _module(further), _module(first)
            at = {place: _trained_at(model, place) for place in (one, other)}
            shared = any(_under(path, one) and "modules_to_save" in path for path in copies) or "token_adapter" in further
            if one == other or shared or not (at[one] or at[other]):
                continue
            both = bool(at[one] and at[other])
            yield self.violation(
                f"trained {'apart from' if both else 'without'} {one if not at[one] or both else other}, to which it is tied",
                Location(other if at[other] else one),
                evidence={"trained": sorted(at[one] + at[other]), "tied": [further, first]},
                fix=Fix(TITLE, Safety.DISPLAY),
            )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each config that trains copies of weights that the checkpoint ties, on every path."""
        for call, steps in source.steps_at(Action.ATTACH):
            config = call.within("peft_config")
            tied = all(step.before.named is not None and step.before.named.tied for step in steps)
            if config is not None and config.callee == "peft.LoraConfig" and tied and _saves_one_of_two(config):
                argument = config.argument("modules_to_save")
                yield self.violation(
                    "embeddings and head are tied, and modules_to_save trains copies that are not",
                    source.at(config) if argument is None else source.at_line(argument.whole.line, "modules_to_save"),
                    surface=Surface.SOURCE,
                    fix=Fix(TITLE, Safety.UNSAFE, source.set_value(config, "ensure_weight_tying", value=True)),
                )


def _saves_one_of_two(config: Call) -> bool:
    """Return whether a LoRA config is certain to train copies of tied weights without tying them again."""
    saved = config.value("modules_to_save")
    tied = config.value("ensure_weight_tying", False)  # noqa: FBT003  # the argument's default
    return isinstance(saved, tuple) and any(name in ("embed_tokens", "lm_head") for name in saved) and tied is False


def _trained_at(model: ModelFacts, place: str) -> list[str]:
    """Return the parameters that an adapter trains at a module itself, not at a submodule."""
    found = []
    for path in (p.path for p in model.trainable if p.adapter and _under(p.path, place)):
        child = path[len(place) + 1 :].partition(".")[0]
        if not any(_under(p.path, f"{place}.{child}") for p in model.parameters if not p.adapter):
            found.append(path)
    return found


def _module(path: str) -> str:
    """Return the base module to which a parameter belongs, without the names that PEFT inserts."""
    return ".".join(name for name in path.rpartition(".")[0].split(".") if name not in _BETWEEN)


def _under(path: str, module: str) -> bool:
    return path.startswith(f"{module}.")
