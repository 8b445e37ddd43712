"""Rule KB522: removed-load-in-kbit-argument."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.source import Action
from kbitlint.rule import Meta, Rule
from kbitlint.upstream.quantization import QUANTIZATION_ARGUMENTS
from kbitlint.upstream.versions import number
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts
    from kbitlint.facts.values import Argument, Call


#: the file may choose a branch by version, and pass the argument to an older one only
_VERSION = re.compile(r"version|\bsignature\(", re.IGNORECASE)
#: comments and texts of several lines, whose versions decide nothing
_STORY = re.compile(r"(\"\"\"|''').*?\1|#[^\n]*", re.DOTALL)


class RemovedLoadInKbitArgument(Rule):
    """Keyword arguments and functions for k-bit loading that were removed.

    ## What it does

    Reports `load_in_4bit` and `load_in_8bit` in `from_pretrained` with transformers 5, for every value. If only some paths pass
    one, it is a warning, and a file that reads versions is not reported. Also reports a `TorchAoConfig` made from a string, and
    the import of `prepare_model_for_int8_training`.

    ## Why is this bad?

    transformers 5 passes unknown keywords to the model's constructor, which raises a TypeError, for `False` and `None` too.
    `TorchAoConfig('int4_weight_only')` raises a ValueError. PEFT replaced the int8 function by
    `prepare_model_for_kbit_training`, so importing it fails.

    ## Example

    `AutoModelForCausalLM.from_pretrained(name, load_in_8bit=True, device_map='auto')`.

    ## Fix

    Pass `quantization_config=BitsAndBytesConfig(load_in_8bit=True)`, or nothing instead of `False`. Call
    `prepare_model_for_kbit_training`. Config arguments beside the keyword move into the config unchanged.

    ## Fix safety

    Safe for 8 bits and for `False`, which keep their meaning. Unsafe for 4 bits without a quantization type or compute dtype:
    the keyword meant fp4 computed in float32, and the new config sets nf4 and bfloat16.

    ## References

    - https://github.com/huggingface/peft/issues/1552
    - https://github.com/allenai/open-instruct/issues/191
    """

    meta: ClassVar[Meta] = Meta(
        code="KB522",
        slug="removed-load-in-kbit-argument",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each removed keyword, string argument or function."""
        five = number(source.versions.get("transformers", "5")) >= (5,)
        asks = _VERSION.search(_STORY.sub("", source.text)) is not None
        for call, steps in source.steps_at(Action.LOAD) if five else ():
            for name in ("load_in_4bit", "load_in_8bit"):
                given = [argument for step in steps if (argument := step.call.argument(name)) is not None]
                always = len(given) == len(steps)
                known = call.callee.startswith(("transformers.", "peft.")) and (always or not asks)
                if given and known:
                    yield self.violation(
                        f"from_pretrained takes no {name} any more: a TypeError" + ("" if always else " where it is passed"),
                        source.at_line(given[0].whole.line, name),
                        surface=Surface.SOURCE,
                        severity=Severity.ERROR if always else Severity.WARNING,
                        consequence=None if always else Consequence.FRAGILE,
                        evidence={"transformers": source.versions.get("transformers")},
                        fix=_fix(source, call, given[0]) if always else Fix("pass a BitsAndBytesConfig", Safety.DISPLAY),
                    )
        for config in source.calls_of("transformers.TorchAoConfig") if five else ():
            if isinstance(config.value("quant_type"), str):
                yield self.violation(
                    "TorchAoConfig takes no text any more: a ValueError",
                    source.at(config),
                    surface=Surface.SOURCE,
                    evidence={"quant_type": config.value("quant_type")},
                    fix=Fix("pass a config of torchao.quantization", Safety.DISPLAY),
                )
        gone = number(source.versions.get("peft", "1")) >= (0, 10)
        for name, local in source.imports if gone else ():
            if name == "peft.prepare_model_for_int8_training":
                yield self.violation(
                    "peft has no prepare_model_for_int8_training any more: an ImportError",
                    source.at_line(source.line_of(local), "import"),
                    surface=Surface.SOURCE,
                    fix=Fix("use prepare_model_for_kbit_training", Safety.DISPLAY),
                )


def _fix(source: SourceFacts, call: Call, argument: Argument) -> Fix:
    """Return the fix: False and None are removed, True becomes a config. A value set elsewhere is display only."""
    inside = call.span.start <= argument.whole.start < call.span.end
    # a name may hold a value of the command line
    inside = inside and source.code_of(argument.span) in ("True", "False", "None")
    other = next(name for name in ("load_in_4bit", "load_in_8bit") if name != argument.name)
    beside = [
        one
        for one in call.arguments
        if one.name in QUANTIZATION_ARGUMENTS["BitsAndBytesConfig"] and one.name not in (argument.name, other)
    ]
    if argument.value is False or argument.value is None:
        title = f"leave {argument.name} out"
        edits = source.remove_argument(argument) if inside and not beside else ()  # transformers would refuse the others next
        return Fix(title, Safety.SAFE, edits) if edits else Fix(title, Safety.DISPLAY)
    title = "pass a BitsAndBytesConfig"
    inside = inside and all(_is_keyword(source, call, one) for one in (argument, *beside))  # not an item of a dict
    if argument.value is not True or not inside or call.gives("quantization_config") or call.value(other) is True:
        return Fix(title, Safety.DISPLAY)
    removed = source.remove_arguments(beside)
    if beside and not removed:
        return Fix(title, Safety.DISPLAY)
    config, edits = source.importing("transformers.BitsAndBytesConfig")
    added, given = [], {one.name for one in beside}
    if argument.name == "load_in_4bit" and "bnb_4bit_quant_type" not in given:
        added.append('bnb_4bit_quant_type="nf4"')
    if argument.name == "load_in_4bit" and "bnb_4bit_compute_dtype" not in given:
        torch, needed = source.importing("torch")
        added.append(f"bnb_4bit_compute_dtype={torch}.bfloat16")
        edits += needed
    inner = ", ".join([f"{argument.name}=True", *added, *(source.code_of(one.whole) for one in beside)])
    edits = source.replace(argument.whole, f"quantization_config={config}({inner})") + removed + edits
    return Fix(title, Safety.UNSAFE if added else Safety.SAFE, edits)


def _is_keyword(source: SourceFacts, call: Call, argument: Argument) -> bool:
    """Return whether an argument is written as ``name=value`` in the call itself."""
    within = call.span.start <= argument.whole.start < call.span.end
    return within and source.text.startswith(argument.name, argument.whole.start)
