"""Rule KB657: missing-padding-token."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.training import Loop
from kbitlint.facts.values import UNKNOWN
from kbitlint.rule import Meta, Rule
from kbitlint.upstream.families import facts_of
from kbitlint.upstream.versions import number
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts
    from kbitlint.facts.training import Training

#: checkpoints whose ``config.json`` names no padding token
_PADLESS: tuple[str, ...] = ("meta-llama/Llama-", "meta-llama/Meta-Llama-3", "mistralai/Mistral-7B", "Qwen/Qwen2.5-")
_PADLESS += ("Qwen/Qwen3-", "EleutherAI/pythia-", "openai-community/gpt2", "microsoft/phi-2")
_NAME = re.compile(r"[A-Za-z_]\w*")
#: types whose sequence classifiers take the logits of the last token that is no padding (transformers 5.23)
_POOLS_LAST = frozenset(
    {"bloom", "falcon", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gptj", "mpt", "opt", "llama", "mistral", "mixtral"}
    | {"gemma", "gemma2", "gemma3_text", "phi", "phi3", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "smollm3", "stablelm"}
    | {"starcoder2", "olmo2", "glm", "glm4", "seed_oss", "helium"}
)
#: types whose decoders shift the labels, and put the padding token in the place of -100
_SHIFTS = frozenset({"t5", "mt5", "umt5"})


class MissingPaddingToken(Rule):
    """A classifier on a decoder, or a T5, whose config names no padding token.

    ## What it does

    Follows `model.config.pad_token_id` from the checkpoint's `config.json` through the assignments of the script to the
    training. Reports sequence classifiers of decoders that are trained with more than one row a batch, and T5, where it is
    None.

    ## Why is this bad?

    The classifier looks for the last token that is no padding, and raises: `Cannot handle batch sizes > 1 if no padding token
    is defined`. Most checkpoints of decoders name no padding token. T5 fills the shifted labels with it, and raises too.

    ## Example

    `AutoModelForSequenceClassification.from_pretrained("meta-llama/Llama-3.2-1B", ...)`, of which only the tokenizer gets a
    padding token.

    ## Fix

    `model.config.pad_token_id = tokenizer.pad_token_id`.

    ## Fix safety

    Display only: which token pads is the tokenizer's to say.

    ## References

    - https://github.com/huggingface/transformers/issues/24265
    - https://github.com/huggingface/trl/issues/3174
    """

    meta: ClassVar[Meta] = Meta(
        code="KB657",
        slug="missing-padding-token",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.2.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each training of a model without a padding token on every path."""
        new = number(source.versions.get("transformers", "5")) >= (5,)
        for trained in source.trained():
            if new and trained.certain and all(_misses(training, source) for training in trained.paths):
                yield self.violation(
                    "the model's config names no padding token, which its forward asks for",
                    source.at(trained.call),
                    surface=Surface.SOURCE,
                    fix=Fix("set model.config.pad_token_id = tokenizer.pad_token_id", Safety.DISPLAY),
                )


def _misses(training: Training, source: SourceFacts) -> bool:
    """Return whether a step of a training certainly asks for a padding token that is not there."""
    model, load = training.model, training.model.load
    if load is None or load.gives("trust_remote_code") or load.gives("config") or load.gives("pad_token_id"):
        return False
    named = model.named
    kind = facts_of(load.value("pretrained_model_name_or_path"), named).model_type
    name = load.value("pretrained_model_name_or_path")
    lacks = named.pads is False if named is not None else isinstance(name, str) and name.startswith(_PADLESS)
    if model.setting("pad_token_id", None if lacks else UNKNOWN) is not None:
        return False
    if kind in _SHIFTS:
        return "Seq2SeqLM" in load.callee or "ConditionalGeneration" in load.callee
    return kind in _POOLS_LAST and "ForSequenceClassification" in load.callee and _has_rows(training, source)


def _has_rows(training: Training, source: SourceFacts) -> bool:
    """Return whether a batch certainly has more than one row, and no tokenizer tells the model its padding token."""
    if training.loop is not Loop.TRAINER:
        return training.batch is not None and (training.batch.rows or 0) > 1
    call, arguments = training.call, training.arguments
    own = f"class {source.code_of(call.span).partition('(')[0]}(Trainer)" in source.text
    if not (own or call.callee.startswith("transformers.")) or call.gives("processing_class") or call.gives("tokenizer"):
        return False  # Trainer aligns the config with a tokenizer that it gets; TRL's trainers do so too
    size = arguments.value("per_device_train_batch_size", 8) if arguments is not None else UNKNOWN
    collator = call.argument("data_collator")
    return isinstance(size, int) and size > 1 and (collator is None or _pads(source.code_of(collator.span), source.text))


def _pads(code: str, text: str) -> bool:
    """Return whether a collator pads the rows of a batch: that of transformers, or a function of the file that pads."""
    if "DataCollatorWithPadding" in code or f"{code} = DataCollatorWithPadding(" in text:
        return True
    bodies = [text.partition(f"\ndef {name}(")[2].partition("\n\n\n")[0] for name in _NAME.findall(code)[:4]]
    return any("okenizer.pad(" in body or "pad_sequence" in body for body in bodies)
