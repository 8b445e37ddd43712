"""The training command of a shell script, as the table that its program would read from a configuration file.

Only commands of programs that take their whole configuration as flags are read: ``swift sft`` and ``swift export``,
``llamafactory-cli train`` and ``trl sft``. A value with a variable of the shell is unknown.
"""

from __future__ import annotations

import re

from kbitlint.facts.values import UNKNOWN, Style
from kbitlint.source.configs.tree import Lines
from kbitlint.source.interpreter.objects import Constant, Entry, Object, Record, Sequence

#: the start of such a command
COMMAND = re.compile(
    r"^(?:[^#\n]*[\s;&|(])?(swift\s+(?:sft|pt|rlhf|export)|llamafactory-cli\s+(?:train|export)|trl\s+(?:sft|dpo|kto|grpo|reward|rloo))\s",
    re.MULTILINE,
)
#: the start of a command of another program, which is recognized and not judged, and its name
OTHER = re.compile(
    r"^(?:[^#\n]*[\s;&|(])?(?:(?P<torchtune>tune\s+run)|(?P<AutoTrain>autotrain\s+\S+)|(?P<xtuner>xtuner\s+train)"
    r"|(?P<Ludwig>ludwig\s+train)|(?P<LitGPT>litgpt\s+finetune\w*)|(?P<OpenRLHF>-m\s+openrlhf\.\S+)|(?P<verl>-m\s+verl\.\S+))\s",
    re.MULTILINE,
)
#: a word of the command: quoted, a line that continues, the end, or plain; a comment ends with its line
_WORD = re.compile(r"""\\\n|(?P<end>\n|;|&|\||\#[^\n]*)|(?P<word>(?:"[^"\n]*"|'[^'\n]*'|[^\s;&|"'\\]|\\(?!\n))+)|\s""")
_NUMBER = re.compile(r"[+-]?(\d+(?:\.\d*)?|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
_LITERALS = {"true": True, "false": False, "none": None, "null": None}


def shell_items(text: str, opening: re.Pattern[str] = COMMAND) -> Record | None:
    """Return the flags of the first training command as a table; None if there is none, or it has no flags.

    Args:
        text: The shell script.
        opening: The start of a command.
    """
    command = opening.search(text)
    if command is None:
        return None
    lines, words = Lines(text), _words(text, command.end())
    span = lines.span(command.start(command.lastindex or 0), words[-1][1] if words else command.end())
    made = Record(span=span, style=Style.YAML, tail=span.end)
    number = 0
    while number < len(words):
        start, end = words[number]
        name, assigned, _ = text[start:end].partition("=")
        number += 1
        if not name.startswith("--"):
            continue
        values = [(start + len(name) + 1, end)] if assigned else []
        while not assigned and number < len(words) and not text.startswith("--", words[number][0]):
            values.append(words[number])
            number += 1
        read = [value_of(text[first:last]) for first, last in values]
        whole = lines.span(start, values[-1][1] if values else end)
        inner = lines.span(values[0][0], values[-1][1]) if values else whole
        held: Object = Constant(True) if not read else read[0] if len(read) == 1 else Sequence(read, inner)  # noqa: FBT003
        made.items[name.removeprefix("--").replace("-", "_")] = Entry(held, inner, whole)
    return made if made.items else None


def _words(text: str, start: int) -> list[tuple[int, int]]:
    """Return the start and the end of each word of a command, up to the end of its logical line."""
    found = []
    while (match := _WORD.match(text, start)) is not None:
        if match["end"] is not None:
            break
        if match["word"] is not None:
            found.append(match.span())
        start = match.end()
    return found


def value_of(word: str) -> Object:
    """Return the value of a word as a configuration file would hold it."""
    if "$" in word or "`" in word:
        return UNKNOWN
    plain = word.strip("\"'")
    if plain.lower() in _LITERALS:
        return Constant(_LITERALS[plain.lower()])
    if _NUMBER.fullmatch(plain) and len(plain) < 20:
        return Constant(int(plain) if plain.lstrip("+-").isdigit() else float(plain))
    return Constant(plain)
