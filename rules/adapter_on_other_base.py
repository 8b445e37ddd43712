"""Rule KB654: adapter-on-other-base."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.source import Action
from kbitlint.rule import Meta, Rule
from kbitlint.upstream.hub_names import other_weights
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model_state import ModelState
    from kbitlint.facts.source import ExecutionPath, SourceFacts, Step
    from kbitlint.facts.values import Call


class AdapterOnOtherBase(Rule):
    """Adapters that were trained on one checkpoint are loaded onto another.

    ## What it does

    Reports adapters that are loaded onto a base whose name differs from that of the base they were trained on. The file
    itself trains and saves them in the same folder, or the `adapter_config.json` of the folder names their base. Copies of
    one checkpoint, mirrors and quantized copies among them, count as the same.

    ## Why is this bad?

    PEFT compares shapes, and not names. Adapters are differences to the weights on which they were trained. Added to others
    they change the model in a way that no training has seen.

    ## Example

    Training on `meta-llama/Llama-3.1-8B-Instruct`, and `PeftModel.from_pretrained` onto `meta-llama/Llama-3.1-8B`.

    ## Fix

    Load the base that the adapters were trained on.

    ## Fix safety

    Unsafe: the merged or served model is another one. Display only if the name is not written in the call.

    ## References

    - https://github.com/huggingface/peft/issues/2368
    - https://github.com/huggingface/peft/issues/1043
    """

    meta: ClassVar[Meta] = Meta(
        code="KB654",
        slug="adapter-on-other-base",
        severity=Severity.ERROR,
        consequence=Consequence.TRAINS_WRONG,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each load of adapters onto another base, on every path to it."""
        found: dict[Call, list[tuple[str, Step] | None]] = {}
        for path in source.paths:
            for step, trained in _loaded(path):
                found.setdefault(step.call, []).append((trained, step) if trained else None)
        for bases in found.values():
            first = bases[0]
            if first is None or None in bases:
                continue
            trained, step = first
            load = step.before.load
            argument = load.argument("pretrained_model_name_or_path") if load is not None else None
            if argument is None:
                continue
            written = source.code_of(argument.span).strip("\"'") == argument.value
            edits = source.replace(argument.span, f'"{trained}"') if written else ()
            yield self.violation(
                f"the adapters were trained on {trained}, and are loaded onto {argument.value}",
                source.at_line(argument.whole.line, "from_pretrained"),
                surface=Surface.SOURCE,
                evidence={"trained_on": trained, "loaded_onto": str(argument.value)},
                fix=Fix(f"load {trained}", Safety.UNSAFE if edits else Safety.DISPLAY, edits),
            )


def _loaded(path: ExecutionPath) -> Iterator[tuple[Step, str]]:
    """Yield each load of adapters, with the other base that they were trained on; empty if it is the same, or not known."""
    saved: dict[str, str] = {}
    checkpoints: dict[str, str] = {}
    outputs = {training.call.span: training.arguments for training in path.trainings}
    for step in path.steps:
        if step.action is Action.LOAD_ADAPTERS:
            yield step, _other(step, saved, checkpoints)
        elif step.action is Action.SAVE and isinstance(step.detail, str):
            saved.pop(step.detail, None)
            if step.before.adapters is not None:
                saved[step.detail] = _base(step.before)
        elif step.action is Action.TRAINER:
            arguments = outputs.get(step.call.span)
            folder = arguments.value("output_dir", arguments.value("0")) if arguments is not None else None
            if isinstance(folder, str) and step.before.adapters is not None:
                checkpoints[f"{folder.rstrip('/')}/checkpoint-"] = _base(step.before)


def _other(step: Step, saved: dict[str, str], checkpoints: dict[str, str]) -> str:
    """Return the base that loaded adapters were trained on, if it certainly is another one; else an empty name."""
    call = step.call
    folder = call.value("model_id", call.value("peft_model_id", call.value("0")))
    if not isinstance(folder, str):
        return ""
    written = next((base for start, base in checkpoints.items() if folder.startswith(start)), None)
    trained = saved.get(folder, written)
    if trained is None and isinstance(step.detail, str):
        trained = step.detail
    return trained if trained and other_weights(trained, _base(step.before)) else ""


def _base(model: ModelState) -> str:
    """Return the name under which a model was loaded; empty if it is not known."""
    name = model.load.value("pretrained_model_name_or_path", model.load.value("model_name")) if model.load is not None else None
    return name if isinstance(name, str) else ""
