"""Rule KB220: quantized-without-adapters."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.source import Action
from kbitlint.rule import Meta, Rule
from kbitlint.upstream.quantization import method_named
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model_state import ModelState
    from kbitlint.facts.source import SourceFacts
    from kbitlint.facts.values import Call


#: keys of configurations that ask for adapters, and then those that ask for the bits
_KEYS = (
    *("finetuning_type", "adapter", "train_type", "tuner_type", "use_peft"),
    *("quantization_bit", "load_in_4bit", "load_in_8bit", "quant_bits"),
)


#: a function that puts adapters into a model and returns no ``PeftModel``
_INJECTS = "peft.inject_adapter_in_model"


def _bare(model: ModelState) -> bool:
    return model.adapters is None or not model.adapters.kept


def _dequantized(model: ModelState) -> bool:
    return model.quantization is not None and model.quantization.value("dequantize", unset=False) is not False


def _fix(source: SourceFacts, trainer: Call, drop: Call | None) -> Fix:
    """Return the fix that keeps a dropped PeftModel under the name that the Trainer gets; display only without one."""
    given = trainer.argument("model")
    name = source.code_of(given.span) if given is not None else ""
    if drop is None or not name.isidentifier():
        return Fix("attach adapters: get_peft_model(model, LoraConfig(...))", Safety.DISPLAY)
    edits = source.replace(drop.span, f"{name} = {source.code_of(drop.span)}")
    return Fix(f"keep the result: {name} = {drop.callee}(...)", Safety.UNSAFE, edits)


class QuantizedWithoutAdapters(Rule):
    """A Trainer receives a quantized model without adapters.

    ## What it does

    Reports a Trainer whose model is quantized on every path and has no adapters when the Trainer is created. Either
    none were attached, or the return value of `get_peft_model` was discarded, or `merge_and_unload()` removed them. Also
    reports a launch of a script with TRL's options that asks for 4 or 8 bits, and not for `--use_peft`.

    ## Why is this bad?

    The packed weights cannot be trained, so Trainer's constructor raises `You cannot perform fine-tuning on purely
    quantized models`. It raises even if the script only evaluates.

    ## Example

    `Trainer(model=AutoModelForCausalLM.from_pretrained(name, quantization_config=config), ...)`.

    ## Fix

    Attach adapters: `get_peft_model(model, LoraConfig(...))`, or pass `peft_config=` if the Trainer accepts it.

    ## Fix safety

    Unsafe if a function of the script returns a PeftModel that is dropped: its result is kept. Else display only: the choice
    of the adapters is the user's.

    ## References

    - https://github.com/huggingface/transformers/issues/26248
    - https://github.com/huggingface/transformers/issues/27702
    - https://github.com/huggingface/trl/issues/1719
    - https://github.com/unslothai/unsloth/issues/1110
    """

    meta: ClassVar[Meta] = Meta(
        code="KB220",
        slug="quantized-without-adapters",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each Trainer that refuses its model on every path."""
        for fault in source.object_faults:
            if fault.kind == "unasked":
                yield self.violation(
                    f"the launch passes {fault.detail} without --use_peft, so {fault.name} returns None, and Trainer refuses",
                    source.at_fault(fault, "peft_config"),
                    surface=Surface.SOURCE,
                    evidence={"flag": fault.detail},
                    fix=Fix("launch it with --use_peft", Safety.DISPLAY),
                )
        for call, steps in source.steps_at(Action.TRAINER):
            models = [step.before for step in steps]
            bare = all(_bare(model) and model.load is not None and model.certain for model in models)
            if bare and all(method_named(model.method).refuses_bare and not _dequantized(model) for model in models):
                how = next((one for one in source.calls if one.callee.startswith(f"{source.dialect}.")), call)
                key = next((one for name in _KEYS if (one := how.argument(name)) is not None), None)
                written = source.dialect != "python" and key is not None
                dropped = {model.adapters.dropped for model in models if model.adapters is not None}
                drop = dropped.pop() if len(dropped) == 1 else None
                yield self.violation(
                    f"the PeftModel that {drop.callee} returns is dropped, and Trainer refuses the quantized model without it"
                    if drop is not None
                    else "the adapters are injected into the quantized model, and Trainer refuses it without a PeftModel"
                    if all(model.adapters is not None and model.adapters.by.callee == _INJECTS for model in models)
                    else "the quantized model has no adapters, and Trainer refuses it",
                    source.at_line(key.whole.line, key.name) if written and key is not None else source.at(drop or call),
                    surface=Surface.SOURCE,
                    evidence={"method": models[0].method, "bits": models[0].bits},
                    fix=_fix(source, call, drop),
                )
