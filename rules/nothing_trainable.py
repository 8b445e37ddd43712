"""Rule KB202: nothing-trainable."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.histories import left_frozen, left_merged, trained_bare
from kbitlint.facts.values import Call
from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Edit, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.checkpoint import CheckpointFacts
    from kbitlint.facts.model import ModelFacts
    from kbitlint.facts.model_state import Adapters
    from kbitlint.facts.source import SourceFacts

_MERGED = "the adapters are merged into the weights, so their forward is the base's and no gradient reaches them"


class NothingTrainable(Rule):
    """Adapters are attached, and no parameter that the model uses requires grad.

    ## What it does

    Reports a model with adapters and no trainable parameter. Also reports it if only idle, disabled or merged adapters train.
    In a script, reports the call that leaves adapters frozen, and a loop that trains a frozen base without adapters, as
    `merge_and_unload` leaves it. In adapter_config.json, reports `inference_mode` as an info.

    ## Why is this bad?

    Training learns nothing. Often it does not even fail: a hook on the embeddings keeps the backward pass alive, the loss is
    printed, and every gradient norm is 0.0.

    ## Example

    `prepare_model_for_kbit_training(get_peft_model(model, config))` freezes the adapters too;
    `PeftModel.from_pretrained(model, folder)` without `is_trainable=True` loads them frozen.

    ## Fix

    Unfreeze the active adapters. In code, prepare first, attach afterwards, and pass `is_trainable=True` to go on training.

    ## Fix safety

    Safe: the model computes the same values, and only adapters become trainable. Display only for disabled or merged ones.

    ## References

    - https://github.com/huggingface/peft/issues/282
    - https://github.com/huggingface/peft/issues/2840
    - https://github.com/huggingface/trl/issues/3926
    """

    meta: ClassVar[Meta] = Meta(
        code="KB202",
        slug="nothing-trainable",
        severity=Severity.ERROR,
        consequence=Consequence.TRAINS_NOTHING,
        since="0.1.0",
    )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield at most one violation, on the model as a whole."""
        if not model.has_adapters:
            raise Unchecked("no adapters are attached yet")
        idle = {adapter.name for adapter in model.adapters if not adapter.active}
        used = [p for p in model.parameters if not (p.adapter_name and (model.bypassed or p.adapter_name in idle))]
        if any(parameter.requires_grad for parameter in used):
            return
        frozen = [parameter for parameter in used if parameter.adapter and parameter.floating]
        why = model.bypassed or "idle"
        yield self.violation(
            f"only {why} adapters require grad" if model.trainable else "no parameter requires grad",
            Location(),
            evidence={
                "adapter_parameters": len(frozen),
                "bypassed": model.bypassed,
                "inference_mode": [adapter.name for adapter in model.adapters if adapter.inference_mode],
            },
            fix=_fix(model.bypassed, tuple(Edit("unfreeze", parameter.path) for parameter in frozen)),
        )

    def check_files(self, checkpoint: CheckpointFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield at most one violation, on the key of adapter_config.json: an info, because saving always sets it."""
        if checkpoint.adapter is None:
            raise Unchecked("no adapter_config.json here")
        if checkpoint.adapter.get("inference_mode") is True:
            yield self.violation(
                "the adapter is saved in inference mode, as saving always does, and loads frozen",
                Location("inference_mode", "adapter_config.json"),
                surface=Surface.FILES,
                severity=Severity.INFO,
                fix=Fix("to train it further, load it with is_trainable=True", Safety.DISPLAY),
            )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each call that leaves adapters frozen on every path that trains them."""
        for call in trained_bare(source):
            yield self.violation(
                "the base is frozen and has no adapters, so no parameter requires grad",
                source.at(call),
                surface=Surface.SOURCE,
                fix=Fix("attach adapters: get_peft_model(model, LoraConfig(...))", Safety.DISPLAY),
            )
        for call in left_merged(source):
            fix = Fix("take them out before training: unmerge_adapter()", Safety.DISPLAY)
            yield self.violation(_MERGED, source.at(call), surface=Surface.SOURCE, fix=fix)
        for call, adapters in left_frozen(source):
            depends = adapters.of_saved_config
            yield self.violation(
                "the adapters are frozen, so no parameter requires grad"
                + (", if the saved config is in inference mode, as PEFT saves it" if depends else ""),
                source.at(call),
                surface=Surface.SOURCE,
                severity=Severity.WARNING if depends else None,
                evidence={"attached_by": adapters.by.callee, "frozen_by": call.callee},
                fix=_source_fix(source, adapters, call),
            )


def _source_fix(source: SourceFacts, adapters: Adapters, call: Call) -> Fix:
    if call.callee.startswith("disable_adapter"):
        return Fix("leave it out, or switch the adapters on again before training", Safety.DISPLAY)
    if adapters.frozen_by is not None:
        edits = source.move_before(call, adapters.by)
        title = "prepare first, attach the adapters afterwards"
        return Fix(title, Safety.SAFE, edits) if edits else Fix(title, Safety.DISPLAY)
    config = adapters.config.argument("inference_mode") if isinstance(adapters.config, Call) else None
    if config is not None and source.code_of(config.span) == "True":
        return Fix("leave inference_mode off", Safety.SAFE, source.replace(config.span, "False"))
    if config is not None:
        return Fix("set inference_mode = False on the loaded config", Safety.DISPLAY)
    return Fix("load them with is_trainable=True", Safety.SAFE, source.set_value(call, "is_trainable", value=True))


def _fix(bypassed: str | None, edits: tuple[Edit, ...]) -> Fix:
    if bypassed == "disabled":
        return Fix("enable the adapters: enable_adapter_layers(), or enable_adapters() of transformers", Safety.DISPLAY)
    if bypassed == "merged":
        return Fix("take the adapters out of the weights: unmerge_adapter()", Safety.DISPLAY)
    return Fix("unfreeze the adapters", Safety.SAFE, edits) if edits else Fix("attach adapters", Safety.DISPLAY)
