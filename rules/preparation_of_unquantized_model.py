"""Rule KB221: preparation-of-unquantized-model."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.source import Action
from kbitlint.rule import Meta, Rule
from kbitlint.upstream.quantization import PREPARED_METHODS, method_named
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts


class PreparationOfUnquantizedModel(Rule):
    """A model that PEFT does not recognise as quantized is prepared for k-bit training.

    ## What it does

    Reports `prepare_model_for_kbit_training` on a model that is unquantized on every path: loaded without a
    quantization config, from a checkpoint whose name indicates none.

    Also reports it on a model whose quantization method PEFT does not list. PEFT lists bitsandbytes, gptq, aqlm, eetq,
    hqq and torchao.

    ## Why is this bad?

    PEFT casts every 16-bit parameter to float32, which doubles the model. It enables no checkpointing although its
    argument requests it. With a method that PEFT does not list, only the unpacked parameters are cast. quanto's weights
    report bfloat16 and refuse the cast, which is an error: `The dtype of a weights Tensor cannot be changed`.

    ## Example

    `model = AutoModelForCausalLM.from_pretrained(name, dtype=torch.bfloat16)` followed by
    `prepare_model_for_kbit_training(model)`.

    ## Fix

    Load with a `quantization_config` of a listed method. Or remove the call, and call only
    `gradient_checkpointing_enable()` before adapters are attached.

    ## Fix safety

    Display only: both may be intended.

    ## References

    - https://github.com/huggingface/peft/issues/1149
    - https://github.com/huggingface/peft/issues/816
    - https://github.com/huggingface/peft/issues/3265
    """

    meta: ClassVar[Meta] = Meta(
        code="KB221",
        slug="preparation-of-unquantized-model",
        severity=Severity.WARNING,
        consequence=Consequence.COSTS_MEMORY,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each preparation of a model that PEFT recognises as quantized on no path."""
        for call, steps in source.steps_at(Action.PREPARE):
            before = [step.before for step in steps]
            methods = {model.method for model in before}
            method = next(iter(methods))
            load = before[0].load
            if len(methods) > 1 or not all(model.load is not None and model.certain for model in before):
                continue
            if method is not None and (not isinstance(method, str) or method in PREPARED_METHODS):
                continue
            refused = method_named(method).refuses_casts and all(model.dtype in ("float16", "bfloat16") for model in before)
            yield self.violation(
                _message(method, refused=refused, unpacked=all(model.unpacked is not None for model in before)),
                source.at(call),
                surface=Surface.SOURCE,
                severity=Severity.ERROR if refused else None,
                consequence=Consequence.FAILS if refused else None,
                evidence={"method": method, "loaded_by": load.callee if load is not None else None},
                fix=Fix("load it with a quantization_config that PEFT knows, or leave the preparation out", Safety.DISPLAY),
            )


def _message(method: str | None, *, refused: bool, unpacked: bool) -> str:
    if refused:
        return f"{method} weights report a float dtype and refuse the preparation's cast: a ValueError"
    if unpacked:
        return "the model is not quantized any more: all of it becomes float32"
    if method is None:
        return "the model is not quantized: all of it becomes float32, and checkpointing stays off"
    return f"PEFT's preparation does not know {method}: what is not packed becomes float32, and checkpointing stays off"
