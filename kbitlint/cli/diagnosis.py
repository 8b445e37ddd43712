"""``kbitlint explain`` on what people have: a warning, a log, a traceback, a ``trainer_state.json``."""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbitlint.errors import KbitlintError
from kbitlint.output.wording import printable, wrapped
from kbitlint.rule import CODE, SLUG
from kbitlint.runtime import content
from kbitlint.upstream.messages import found_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_MOST = 16 * 1024 * 1024
#: a line that Trainer prints for its logs, as Python writes a dictionary
_LOGGED = re.compile(r"\{[^{}]*'(?:loss|grad_norm)'[^{}]*\}")
_NUMBER = re.compile(r"'(loss|grad_norm|learning_rate)': '?(-?[\d.]+(?:e[-+]?\d+)?|nan|-?inf)'?", re.IGNORECASE)
#: the same in people's words: ``loss is nan``, ``grad_norm = 0.0``
_SAID = re.compile(
    r"(?<![\w.])(loss|grad_norm|learning_rate)\s*(?:is|was|of|becomes|=|:)?\s*(nan|-?inf|0(?:\.0+)?)(?![\w.]*\d)\b",
    re.IGNORECASE,
)
#: characters of an unknown text that its error repeats
_SHOWN = 60
#: entries from which on an unchanged loss is a sign
_CONSTANT = 5
#: what the numbers of a run say: the sign, what it means, the rules that find the cause
_STATES = (
    (
        "loss 0",
        "every label is masked (-100), or float16 has overflowed and the Trainer prints what is missing as 0",
        "KB904, KB101, KB106, KB121",
    ),
    (
        "loss nan or inf",
        "float16 overflows, in norms or in the compute dtype of layers; or a batch has no label",
        "KB101, KB106, KB121, KB904",
    ),
    (
        "grad_norm nan or inf",
        "harmless in the first steps under fp16, which the loss scaler skips; later the gradients overflow",
        "KB101, KB106, KB121",
    ),
    ("grad_norm 0", "no gradient reaches a trainable parameter", "KB202, KB301, KB303, KB604"),
    (
        "a loss that never changes",
        "no parameter changes: they are frozen, or the optimizer holds others",
        "KB202, KB301, KB307, KB706",
    ),
    ("learning_rate 0", "no step changes anything; in the first entry alone it is the warm-up", "KB706"),
)
_CHECK = "kbitlint check train.py, and train.py:build_model --meta for the model itself"


def is_rules(words: Sequence[str]) -> bool:
    """Return whether each word has the form of a code or slug, and is no file."""
    return all((CODE.fullmatch(word.upper()) or SLUG.fullmatch(word.lower())) and not Path(word).exists() for word in words)


def diagnose(words: Sequence[str], columns: int) -> str:
    """Return what the messages mean that words, files or the standard input (``-``) hold.

    Raises:
        KbitlintError: A file cannot be read, or no message is known.
    """
    text = " ".join(map(_text_of, words))
    blocks = [*_runs(text, columns), *(_block(message, columns) for message in found_in(text))]
    if not blocks:
        given = " ".join((text if words == ("-",) else " ".join(words)).split())[:_SHOWN]
        raise KbitlintError(
            f"explain: no rule is called {given!r}, and it holds no message that is known; "
            "if a script printed it, `kbitlint rehearse train.py` looks for the cause"
        )
    return "\n\n".join(blocks)


def _text_of(word: str) -> str:
    if word == "-":
        return sys.stdin.read(_MOST)
    path = Path(word)
    try:
        if not path.is_file():
            return word
        return content.read(path, _MOST).decode("utf-8", "replace")
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and "\n" not in word and " " not in word:
            raise KbitlintError(f"{word}: cannot be read: {error.strerror or error}") from error
        return word


def _block(message: Any, columns: int) -> str:
    lines = [f"{message.library}: {printable(message.sign.replace('*', '...'))}"]
    lines += wrapped(f"{message.verdict.value}: {message.meaning}", columns, "  ")
    if message.rules:
        lines += wrapped(f"rules: {', '.join(message.rules)}", columns, "  ")
    if message.command:
        lines += wrapped(f"run: {message.command}", columns, "  ")
    return "\n".join(lines)


def _runs(text: str, columns: int) -> Iterator[str]:
    """Yield what the logged numbers of a run mean."""
    entries = list(_logged(text))
    losses, norms, rates = ([entry[key] for entry in entries if key in entry] for key in ("loss", "grad_norm", "learning_rate"))
    constant = len(losses) >= _CONSTANT and len(set(losses)) == 1 and not _all_zero(losses)
    seen = (_all_zero(losses), not _finite(losses), not _finite(norms), _all_zero(norms), constant, _all_zero(rates))
    for holds, (sign, meaning, rules) in zip(seen, _STATES, strict=True):
        if holds:
            lines = [f"the log: {sign}", *wrapped(meaning, columns, "  "), *wrapped(f"rules: {rules}", columns, "  ")]
            yield "\n".join([*lines, *wrapped(f"run: {_CHECK}", columns, "  ")])


def _finite(numbers: Iterable[float]) -> bool:
    return all(map(math.isfinite, numbers))


def _all_zero(numbers: Iterable[float]) -> bool:
    numbers = list(numbers)
    return bool(numbers) and not any(numbers)


def _logged(text: str) -> Iterator[dict[str, float]]:
    """Yield the logged numbers of a trainer_state.json, or of the lines that Trainer prints."""
    if text.lstrip().startswith("{"):
        try:
            history = json.loads(text).get("log_history", [])
        except (ValueError, RecursionError, AttributeError):
            history = []
        for entry in history if isinstance(history, list) else []:
            if isinstance(entry, dict):
                yield {key: float(value) for key, value in entry.items() if isinstance(value, (int, float))}
    logged = _LOGGED.findall(text)
    for line in logged:
        yield {name: float(value) for name, value in _NUMBER.findall(line)}
    if not logged:
        yield {name.lower(): float(value) for name, value in _SAID.findall(text)}
