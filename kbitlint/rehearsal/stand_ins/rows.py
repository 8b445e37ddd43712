"""Rows of made-up data: the columns of well-known data sets, and a value for a column by its name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS = 16
_PROSE = (
    "The river runs past the old mill and under two bridges before it reaches the harbour, where boats wait for the tide "
    "and people sell bread, fish and warm tea from small wooden stalls every morning of the week"
)
_WORDS = tuple(_PROSE.split())

#: a regular expression over the lower-case name of a data set -> its columns and its splits
KNOWN: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    (r"guanaco|openassistant-guanaco", ("text",), ("train", "test")),
    (r"ultrachat", ("prompt", "prompt_id", "messages"), ("train_sft", "test_sft", "train_gen", "test_gen")),
    (r"trl-lib/ultrafeedback", ("chosen@messages", "rejected@messages", "score_chosen", "score_rejected"), ("train", "test")),
    (r"ultrafeedback", ("prompt", "chosen@messages", "rejected@messages"), ("train", "test", "train_prefs", "test_prefs")),
    (r"capybara", ("messages",), ("train", "test")),
    (r"dolly", ("instruction", "context", "response", "category"), ("train",)),
    (r"alpaca", ("instruction", "input", "output", "text"), ("train",)),
    (r"code_instructions|codealpaca", ("instruction", "input", "output"), ("train",)),
    (r"gsm8k", ("question", "answer"), ("train", "test")),
    (r"samsum", ("id", "dialogue", "summary"), ("train", "validation", "test")),
    (r"xsum", ("document", "summary", "id"), ("train", "validation", "test")),
    (r"cnn_dailymail", ("article", "highlights", "id"), ("train", "validation", "test")),
    (r"imdb|yelp|ag_news", ("text", "label"), ("train", "test")),
    (r"hh-rlhf", ("chosen", "rejected"), ("train", "test")),
    (r"orca_dpo|dpo-pairs", ("system", "question", "chosen", "rejected"), ("train",)),
    (r"english_quotes", ("quote", "author", "tags@list"), ("train",)),
    (r"wikitext|openwebtext|c4|tiny_?shakespeare|tinystories", ("text",), ("train", "validation", "test")),
    (r"squad", ("id", "title", "context", "question", "answers@answers"), ("train", "validation")),
    (r"sharegpt|openhermes|slimorca", ("conversations",), ("train",)),
    (r"oasst", ("text", "role", "message_id", "parent_id"), ("train", "validation")),
    (r"sql-create-context", ("answer", "question", "context"), ("train",)),
)


def known_columns(name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the columns and the splits of a data set. One that is not known has a text, for training and tests."""
    lowered = name.lower()
    for pattern, columns, splits in KNOWN:
        if re.search(pattern, lowered):
            return columns, splits
    return ("text",), ("train", "test")


def sentence(number: int) -> str:
    """Return a sentence that differs from row to row."""
    start = (7 * number) % len(_WORDS)
    return " ".join((*_WORDS[start:], *_WORDS[:start], str(number)))


def value_of(column: str, number: int) -> Any:
    """Return the value of a column in a row. A name may say its kind after an ``@``.

    Args:
        column: ``messages``, ``label``, ``chosen@messages``.
        number: The number of the row.
    """
    name, _, kind = column.lower().partition("@")
    nested: dict[str, Callable[[], Any]] = {
        "list": lambda: [sentence(number), "one"],
        "answers": lambda: {"text": ["river"], "answer_start": [4]},
        "messages": lambda: _talk(number, "role", "content", ("user", "assistant")),
        "conversations": lambda: _talk(number, "from", "value", ("human", "gpt")),
        "conversation": lambda: _talk(number, "from", "value", ("human", "gpt")),
        "input_ids": lambda: [(5 + number + place) % 200 for place in range(32)],
        "attention_mask": lambda: [1] * 32,
        "image": lambda: _image(number),
        "images": lambda: [_image(number)],
    }
    make = nested.get(kind or name)
    return make() if make is not None else _plain(name, number)


def _plain(name: str, number: int) -> Any:
    if re.fullmatch(r"(label|labels|target|class|idx|index|.*_id|.*_label)", name):
        return number % 2
    if re.search(r"score|rating|reward|margin|probability", name):
        return number / ROWS
    return sentence(number)


def _talk(number: int, who: str, what: str, names: tuple[str, str]) -> list[dict[str, str]]:
    return [{who: names[turn % 2], what: sentence(number + turn)} for turn in range(2)]


def _image(number: int) -> Any:
    from PIL import Image  # an optional dependency

    return Image.new("RGB", (64, 64), (number % 256, 64, 128))
