"""Rule KB714: end-token-never-learned."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint import lazy_patterns as re
from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.ranks import RanksFacts
    from kbitlint.facts.source import SourceFacts

#: a collator that may make the labels, with its arguments
_COLLATES = re.compile(r"\b(?P<class>DataCollatorFor(?:LanguageModeling|CompletionOnlyLM))\((?P<inside>[^()]{0,1000}\))")
#: the arguments with which it makes them, and a word among them
_LABELS = re.compile(r"\bmlm\s*=\s*False|response_template")
_WORD = re.compile(r"\b(\w+)\s*[,)]")
_SETS_PAD = re.compile(
    r"(?m)^(?P<indent>[ \t]*)(?P<tokenizer>[\w.]+)\.pad_token(?P<id>_id)?[ \t]*=(?!=)[ \t]*(?P<value>[^\n#]*)"
)
#: what is joined to a text or a list, or put into an f-string, and names for values
_JOINED = re.compile(r"[+{]\s*(?:\[\s*)?([\w.]+)")
_NAMED = re.compile(r"(?m)^[ \t]*(\w+)[ \t]*=[ \t]*([\w.]+)[ \t]*(?:#[^\n]*)?$")
_ASKED = re.compile(r"add_eos_token\s*=\s*True")
#: other ways to a pad token, and templates, which may end turns with a token of their own
_UNSURE = re.compile(r"add_special_tokens\(|[\"']pad_token[\"']|\bpad_token\s*=\s*[\"']|chat_template")


class EndTokenNeverLearned(Rule):
    """The end of each sequence is masked, so that the model never learns to stop.

    ## What it does

    In a script, reports a collator that masks every pad token, if the end token is set as the pad token of its tokenizer
    and the script puts end tokens into the data.

    For a Trainer, batches the first sequences of its data with its collator. Reports a batch that contains end-of-sequence
    tokens and other labels, if no end has a label.

    ## Why is this bad?

    The model learns what to write and not where to end. Generation runs to its limit, or starts the next turn by itself.

    ## Example

    `tokenizer.pad_token = tokenizer.eos_token` with `DataCollatorForLanguageModeling`, which masks every pad token.

    ## Fix

    Use another token for padding: an unused or the unknown token, or a new one with `resize_token_embeddings`.

    ## Fix safety

    Display only: the token has to exist in the tokenizer.

    ## References

    - https://github.com/huggingface/transformers/issues/22794
    - https://github.com/huggingface/transformers/issues/23230
    """

    meta: ClassVar[Meta] = Meta(
        code="KB714",
        slug="end-token-never-learned",
        severity=Severity.WARNING,
        consequence=Consequence.TRAINS_WRONG,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each collator that masks the end tokens of a training's data."""
        text = source.own_text
        if "DataCollator" not in text or ".pad_token" not in text or _UNSURE.search(text) or not any(source.trained()):
            return
        if any(name.startswith("trl") and name.endswith("ForLanguageModeling") for name, _ in source.imports):
            return  # TRL's own takes the mask of the data
        for found in _COLLATES.finditer(text):
            tokenizer = next((word for word in _WORD.findall(found["inside"]) if "tok" in word), "")
            if tokenizer and _LABELS.search(found["inside"]) and _pads_with_end(text, tokenizer) and _has_ends(text, tokenizer):
                yield self.violation(
                    f"{found['class']} masks every pad token, and the pad token of {tokenizer} is its end token",
                    source.at_line(text.count("\n", 0, found.start()) + 1, found["class"]),
                    surface=Surface.SOURCE,
                    evidence={"tokenizer": tokenizer},
                    fix=Fix("pad with another token than the end token", Safety.DISPLAY),
                )

    def check_ranks(self, ranks: RanksFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield at most one violation, on the data as a whole."""
        batch = ranks.labelled
        if batch is None:
            raise Unchecked("no trainer whose first batch has labels is at hand")
        if batch.learned and batch.ends and not batch.learned_ends:
            yield self.violation(
                f"none of the {batch.ends} end tokens of the first {batch.sequences} sequences has a label",
                Location("labels"),
                surface=Surface.RANKS,
                evidence={"ends": batch.ends, "learned": batch.learned},
                fix=Fix("pad with another token than the end token", Safety.DISPLAY),
            )


def _pads_with_end(text: str, tokenizer: str) -> bool:
    """Return whether the end token is certainly the pad token: the one statement that sets it has no condition."""
    sets = [found for found in _SETS_PAD.finditer(text) if not found["tokenizer"].endswith("config")]
    if len(sets) != 1 or sets[0]["tokenizer"] != tokenizer:
        return False
    indent, value = sets[0]["indent"], sets[0]["value"].strip()
    before = [line for line in text[: sets[0].start()].split("\n") if line.strip()]
    outer = next((line for line in reversed(before) if len(line) - len(line.lstrip()) < len(indent)), "") if indent else ""
    return value == f"{tokenizer}.eos_token{sets[0]['id'] or ''}" and (
        not outer or outer.lstrip().startswith(("def ", "async "))
    )


def _has_ends(text: str, tokenizer: str) -> bool:
    """Return whether the script puts end tokens into its data."""
    if _ASKED.search(text):
        return True
    ends = {f"{tokenizer}.eos_token", f"{tokenizer}.eos_token_id"}
    ends |= {name for name, value in _NAMED.findall(text) if value in ends}
    return any(joined in ends for joined in _JOINED.findall(text))
