"""Rule KB528: packed-task-head."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.source import Action
from kbitlint.facts.values import Call, last_name
from kbitlint.rule import Meta, Rule
from kbitlint.upstream.signatures.lookup import takes
from kbitlint.upstream.task_heads import BIASED, HEADLESS, HEADS, OTHER_ANSWERS, head_kind
from kbitlint.upstream.versions import number
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model_state import ModelState
    from kbitlint.facts.source import SourceFacts
    from kbitlint.facts.values import Span


class PackedTaskHead(Rule):
    """The head of a task model is quantized, and PEFT is asked to train it.

    ## What it does

    Reports bitsandbytes configs that do not name the head in `llm_int8_skip_modules`, if adapters train it through `task_type`
    or `modules_to_save`. The model must be loaded for token classification, question answering, or sequence classification with
    an encoder. The rule applies to transformers 5.

    ## Why is this bad?

    transformers 5 leaves the last parameter of a model unquantized, by its name. If the head has a bias, that is
    `classifier.bias`, which names no layer, so the head is packed. PEFT then raises when its copy is made to require grad:
    `only Tensors of floating point dtype can require gradients`. A head that the checkpoint lacks stays a float matrix in a
    4-bit layer: the first forward pass raises an AssertionError. Heads without a bias, as in decoders for sequences, stay
    unquantized, unless a list without their name is passed.

    ## Example

    `AutoModelForTokenClassification.from_pretrained(name, quantization_config=BitsAndBytesConfig(load_in_4bit=True))`
    with `LoraConfig(task_type='TOKEN_CLS')`.

    ## Fix

    Set `llm_int8_skip_modules=['classifier', 'score']`, or `['qa_outputs']`. For sequences add `pre_classifier` and `pooler`,
    which are new on most checkpoints too.

    ## Fix safety

    Unsafe: the head is computed in 16 bits. Display only if the config already has a list.

    ## References

    - https://github.com/huggingface/peft/issues/1070
    - https://github.com/huggingface/transformers/issues/45674
    """

    meta: ClassVar[Meta] = Meta(
        code="KB528",
        slug="packed-task-head",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each quantization config whose packed head PEFT is asked to train on every path."""
        if number(source.versions.get("transformers", "5")) < (5,):
            return
        found: dict[Span, tuple[Call, tuple[str, ...] | None]] = {}
        certain: set[Span] = set()
        for _, steps in source.steps_at(Action.ATTACH):
            for step in steps:
                config = step.before.quantization
                if config is not None:
                    heads = _packed(step.before) if _trains(step.call, step.before, source.versions) else None
                    certain |= {config.span} if _is_named(step.before) else set()
                    _, others = found.get(config.span, (config, heads))
                    found[config.span] = config, heads if heads == others else None
        for config, heads in found.values():
            if heads is not None:
                title = f"leave it unquantized: llm_int8_skip_modules={list(heads)}"
                given = config.argument("llm_int8_skip_modules")
                open_to = not config.gives("llm_int8_skip_modules")
                edits = source.set_argument(config, "llm_int8_skip_modules", repr(list(heads))) if open_to else ()
                named = config.span in certain
                yield self.violation(
                    "the head is quantized too, and a packed head cannot be trained"
                    + ("" if named else ", unless the checkpoint's class has a head of another name"),
                    source.at(config) if given is None else source.at_line(given.whole.line, given.name),
                    surface=Surface.SOURCE,
                    severity=None if named else Severity.WARNING,
                    consequence=None if named else Consequence.FRAGILE,
                    evidence={"heads": list(heads)},
                    fix=Fix(title, Safety.UNSAFE, edits) if edits else Fix(title, Safety.DISPLAY),
                )


def _kind(model: ModelState) -> str | None:
    return head_kind(model.load.callee) if model.load is not None else None


def _is_named(model: ModelState) -> bool:
    """Return whether the script names the checkpoint or a class, so that the name of the head is known."""
    load = model.load
    return load is not None and (".Auto" not in load.callee or isinstance(load.value("pretrained_model_name_or_path"), str))


def _packed(model: ModelState) -> tuple[str, ...] | None:
    """Return the names that the packed head may have; None if it stays unquantized or that is not known."""
    kind, config = _kind(model), model.quantization
    if kind is None or config is None or model.load is None or not model.packed or not model.certain:
        return None
    if config.value("llm_int8_has_fp16_weight") is True:
        return None
    skipped = config.value("llm_int8_skip_modules")
    heads = HEADS[kind][0]
    if isinstance(skipped, tuple):
        named = [name.replace("lm_head", "") for name in skipped if isinstance(name, str)]
        known = len(named) == len(skipped) > 0
        return heads if known and not any(head in name for head in (*heads, "class", "head") for name in named) else None
    name = model.load.value("pretrained_model_name_or_path")
    if skipped is not None or not isinstance(name, str):
        return heads if skipped is None and kind == "ForTokenClassification" else None
    if kind == "ForSequenceClassification":
        return heads if BIASED.fullmatch(name) else None
    return None if kind == "ForQuestionAnswering" and OTHER_ANSWERS.search(name) else heads


def _trains(attach: Call, model: ModelState, versions: Mapping[str, str]) -> bool:
    """Return whether an adapter config makes PEFT train a copy of the head. One without a field for it never does."""
    config, kind = attach.within("peft_config"), _kind(model)
    if config is None or kind is None or not takes(config.callee, "modules_to_save", versions):
        return False
    heads, tasks = HEADS[kind]
    saved, task = config.value("modules_to_save"), config.value("task_type")
    by_task = last_name(task) in tasks and attach.callee not in HEADLESS  # which add no head
    return by_task or (isinstance(saved, tuple) and any(name in heads for name in saved))
