"""KB528."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.source import Action
from kbitlint.facts.values import Call, Symbol
from kbitlint.rule import Meta, Rule
from kbitlint.upstream.versions import number
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model_state import ModelState
    from kbitlint.facts.source import SourceFacts
    from kbitlint.facts.values import Value

#: what the heads of each kind of class are called, and the task types for which PEFT trains a copy of them
HEADS = {
    "ForTokenClassification": (("classifier", "score"), ("TOKEN_CLS", "SEQ_CLS")),
    "ForSequenceClassification": (("classifier", "score", "pre_classifier", "pooler"), ("TOKEN_CLS", "SEQ_CLS")),
    "ForQuestionAnswering": (("qa_outputs",), ("QUESTION_ANS",)),
}
#: checkpoints whose classifiers of sequences have a bias, by the names that their publishers gave them
_BIASED = re.compile(
    r"(google-bert/|FacebookAI/|distilbert/|albert/)?(bert|roberta|xlm-roberta|distilbert|albert)-[\w-]+"
    r"|microsoft/m?deberta-[\w-]+|google/(electra|mobilebert|bigbird|canine|fnet)-[\w-]+|answerdotai/ModernBERT-\w+"
)
#: no ``qa_outputs``, so that PEFT's task type finds nothing to copy
_OTHER_ANSWERS = re.compile("modernbert", re.IGNORECASE)


class PackedTaskHead(Rule):
    """The head of a model for a task is quantized, and PEFT is asked to train it.

    ## What it does

    Reports bitsandbytes configs without the head in `llm_int8_skip_modules` whose model is loaded for the
    classification of tokens, for question answering, or for the classification of sequences with an encoder, and gets
    adapters that train the head: by `task_type`, or by `modules_to_save`.

    ## Why is this bad?

    transformers 5 spares the last parameter of a model by its name. Where the head has a bias, that is
    `classifier.bias`, which names no layer, and the head is packed. PEFT then stops when its copy is made to require
    grad: `only Tensors of floating point dtype can require gradients`. Where the checkpoint has no such head, it stays
    a float matrix in a 4-bit layer, and the first forward pass stops with an AssertionError. Heads without a bias, as
    decoders have them for sequences, are spared, unless a list is given that does not name them.

    ## Example

    `AutoModelForTokenClassification.from_pretrained(name, quantization_config=BitsAndBytesConfig(load_in_4bit=True))`
    with `LoraConfig(task_type='TOKEN_CLS')`.

    ## Fix

    `llm_int8_skip_modules=['classifier', 'score']`, or `['qa_outputs']`; for sequences also `pre_classifier` and
    `pooler`, which are new on most checkpoints too.

    ## Fix safety

    Unsafe: the head is computed in 16 bits.

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
        """One violation for each quantization config whose head PEFT is asked to train on every path."""
        if number(source.versions.get("transformers", "5")) < (5,):
            return
        found: dict[Call, tuple[str, ...] | None] = {}
        for _, steps in source.steps_at(Action.ATTACH):
            for step in steps:
                config = step.before.quantization
                if config is not None:
                    heads = _packed(step.before) if _trains(step.call, step.before) else None
                    found[config] = heads if found.get(config, heads) == heads else None
        for config, heads in found.items():
            if heads is not None:
                title = f"leave it unquantized: llm_int8_skip_modules={list(heads)}"
                given = config.gives("llm_int8_skip_modules")
                edits = () if given else source.set_argument(config, "llm_int8_skip_modules", repr(list(heads)))
                yield self.violation(
                    "the head is quantized too, and a packed head cannot be trained",
                    source.at(config),
                    surface=Surface.SOURCE,
                    evidence={"heads": list(heads)},
                    fix=Fix(title, Safety.UNSAFE, edits) if edits else Fix(title, Safety.DISPLAY),
                )


def _kind(model: ModelState) -> str | None:
    callee = model.load.callee if model.load is not None else ""
    return next((kind for kind in HEADS if kind in callee), None)


def _packed(model: ModelState) -> tuple[str, ...] | None:
    """The names that the packed head may have; None where it is spared, or where that cannot be told."""
    kind, config = _kind(model), model.quantization
    if kind is None or config is None or model.load is None or model.method != "bitsandbytes" or not model.certain:
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
        return heads if _BIASED.fullmatch(name) else None
    return None if kind == "ForQuestionAnswering" and _OTHER_ANSWERS.search(name) else heads


def _trains(attach: Call, model: ModelState) -> bool:
    """Whether an adapter config makes PEFT train a copy of the head."""
    config, kind = attach.within("peft_config"), _kind(model)
    if config is None or kind is None:
        return False
    heads, tasks = HEADS[kind]
    task = _text(config.value("task_type"))
    saved = config.value("modules_to_save")
    return task in tasks or (isinstance(saved, tuple) and any(name in heads for name in saved))


def _text(value: Value) -> str:
    return value.last if isinstance(value, Symbol) else str(value)
