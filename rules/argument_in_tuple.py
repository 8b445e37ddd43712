"""Rule KB552: argument-in-tuple."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.values import Call, Span
from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts
    from kbitlint.facts.values import Argument

#: the arguments that take one object, and no tuple or list, by the end of the callee
_SINGLE = {
    "from_pretrained": ("pretrained_model_name_or_path", "quantization_config", "config"),
    "get_peft_model": ("model", "peft_config"),
    "prepare_model_for_kbit_training": ("model",),
    "Trainer": ("model", "args", "peft_config"),
    "LoraConfig": ("r", "lora_alpha", "lora_dropout", "bias", "task_type"),
    "TrainingArguments": ("learning_rate", "max_steps", "warmup_steps", "per_device_train_batch_size"),
}


class ArgumentInTuple(Rule):
    """A comma behind a value makes a tuple of it, and the call takes no tuple.

    ## What it does

    Reports a model, a quantization or adapter config, training arguments, a checkpoint's name or a number that reaches
    `from_pretrained`, `prepare_model_for_kbit_training`, `get_peft_model`, a trainer, `LoraConfig` or `TrainingArguments` as a
    tuple or list of one item. The report is at the comma if the file shows it.

    ## Why is this bad?

    `config = BitsAndBytesConfig(...),` is a tuple of one config. The libraries read attributes of it: `from_pretrained` raises
    `'tuple' object has no attribute 'quant_method'`. `get_peft_model`, the trainers and `LoraConfig` raise an AttributeError or
    TypeError of that kind.

    ## Example

    `bnb = BitsAndBytesConfig(load_in_4bit=True),`, then `from_pretrained(name, quantization_config=bnb)`.

    ## Fix

    Remove the comma.

    ## Fix safety

    Safe: the call raises as it is. Display only if the file does not show the comma.

    ## References

    - https://github.com/artidoro/qlora/issues/29
    """

    meta: ClassVar[Meta] = Meta(
        code="KB552",
        slug="argument-in-tuple",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each comma, and for each argument whose comma is not shown, that every path passes."""
        seen: set[int] = set()
        for forms in source.forms_of(*{call.callee for call in source.calls}):
            for name in _single(forms[0].callee):
                given = [argument for form in forms if (argument := form.argument(name)) is not None]
                if not given or len(given) < len(forms) or not all(map(_holds_one, given)):
                    continue
                comma = _comma(source, given[0])
                place = comma if comma is not None else given[0].whole
                if place.start in seen:
                    continue
                seen.add(place.start)
                edits = source.replace(comma, "") if comma is not None else ()
                title = "remove the comma" if comma is not None else "pass the item itself"
                yield self.violation(
                    f"{name} is a tuple or list of one item, and {forms[0].callee.rpartition('.')[2]} reads the item itself",
                    source.at_line(place.line, name),
                    surface=Surface.SOURCE,
                    evidence={"argument": name},
                    fix=Fix(title, Safety.SAFE if edits else Safety.DISPLAY, edits),
                )


@functools.lru_cache(maxsize=256)
def _single(callee: str) -> tuple[str, ...]:
    library, _, name = callee.partition(".")
    if library not in ("transformers", "peft", "trl"):
        return ()
    return next((names for end, names in _SINGLE.items() if name.endswith(end)), ())


def _holds_one(argument: Argument) -> bool:
    return isinstance(argument.value, tuple) and len(argument.value) == 1


def _comma(source: SourceFacts, argument: Argument) -> Span | None:
    """Return the place of the comma that makes the tuple; None if the file does not show it.

    It is behind the call that makes a config, or at the end of the line that assigns a name.
    """
    item = argument.value[0] if isinstance(argument.value, tuple) else None
    if isinstance(item, Call):
        return _comma_behind(source.text, item.span.end)
    name = source.code_of(argument.span)
    found: list[int] = []
    start = assigned = 0
    for line in source.text.split("\n"):
        code = line.partition("#")[0].rstrip()
        target, sign, value = code.partition("=")
        if sign and target.strip() == name:
            assigned += 1
            if code.endswith(",") and value[:-1].strip() and not value.startswith("="):
                found.append(start + len(code) - 1)
        start += len(line) + 1
    if not name.isidentifier() or len(found) != 1 or (assigned > 1 and source.text[found[0] - 1] != ")"):
        return None  # the other assignments may be those of the model before
    return Span(found[0], found[0] + 1, source.text.count("\n", 0, found[0]) + 1)


def _comma_behind(text: str, end: int) -> Span | None:
    """Return the place of a comma that ends the line behind a call; None if there is none."""
    line = text[end : end + 200].partition("\n")[0]
    if line.partition("#")[0].strip() != ",":
        return None
    start = end + line.index(",")
    return Span(start, start + 1, text.count("\n", 0, start) + 1)
