"""Rule KB627: merge-into-other-weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.source import Action
from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model_state import ModelState
    from kbitlint.facts.source import SourceFacts, Step
    from kbitlint.facts.values import Call


class MergeIntoOtherWeights(Rule):
    """Adapters that were trained on quantized weights are merged into unquantized ones.

    ## What it does

    Reports `merge_and_unload()` on an unquantized base, if the file saved these adapters from a base that it loaded
    quantized. The folder of the save must be the folder from which the adapters are loaded.

    ## Why is this bad?

    The adapters learned to correct the base together with its quantization error. The unquantized base does not have
    that error. The merged model therefore differs from the model that was trained and evaluated. The difference is
    usually small, but not for all models.

    ## Example

    Training on `from_pretrained(name, quantization_config=config)`, `trainer.save_model('adapter')`, then
    `AutoPeftModelForCausalLM.from_pretrained('adapter', dtype=torch.bfloat16).merge_and_unload()`.

    ## Fix

    Evaluate the merged model again. Or merge into the weights of the training run: call `base = base.dequantize()` on
    the quantized base and load the adapters onto the result.

    ## Fix safety

    Display only: the fix is a different workflow.

    ## References

    - https://github.com/huggingface/peft/issues/2321
    - https://github.com/huggingface/peft/issues/1043
    - https://arxiv.org/abs/2305.14314
    """

    meta: ClassVar[Meta] = Meta(
        code="KB627",
        slug="merge-into-other-weights",
        severity=Severity.INFO,
        consequence=Consequence.HARMLESS,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each merge of such adapters on every path."""
        merged: dict[Call, list[ModelState | None]] = {}
        for path in source.paths:
            saved: dict[str, ModelState] = {}
            for step in path.steps:
                if step.action is Action.MERGE:
                    merged.setdefault(step.call, []).append(_trained_on(saved, step))
                elif step.action is Action.SAVE and isinstance(step.detail, str):
                    saved[step.detail] = step.before
        for call, trained in merged.items():
            model = trained[0]
            if model is not None and None not in trained:
                packed = f"{model.bits}-bit" if isinstance(model.bits, int) else f"{model.method}"
                yield self.violation(
                    f"the adapters were trained on {packed} weights and are merged into the unquantized ones",
                    source.at(call),
                    surface=Surface.SOURCE,
                    evidence={"method": model.method, "bits": model.bits},
                    fix=Fix("evaluate the merged model, or merge into the dequantized base", Safety.DISPLAY),
                )


def _trained_on(saved: Mapping[str, ModelState], merge: Step) -> ModelState | None:
    """Return the quantized model from which the merged adapters were saved; None if there is none or it is not known."""
    adapters, load = merge.before.adapters, merge.before.load
    if adapters is None or load is None or merge.before.kbit or not merge.before.certain:
        return None
    if load.value("quantization_config") is not None:
        return None
    folder = adapters.by.value("model_id", adapters.by.value("pretrained_model_name_or_path"))
    model = saved.get(folder) if isinstance(folder, str) else None
    asked = model is not None and model.load is not None and model.load.within("quantization_config") is not None
    return model if model is not None and asked and model.kbit and model.adapters is not None else None
