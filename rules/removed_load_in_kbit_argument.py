"""Rule KB522: removed-load-in-kbit-argument."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint import lazy_patterns as re
from kbitlint.facts.config_moves import into_given_config, into_new_config
from kbitlint.facts.passed import is_certain
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

#: the code may choose a branch by version
_VERSION = re.compile(r"version|\bsignature\(", re.IGNORECASE)
_STORY = re.compile(r"(\"\"\"|''').*?\1|#[^\n]*", re.DOTALL)
FLAGS = ("load_in_4bit", "load_in_8bit")


class RemovedLoadInKbitArgument(Rule):
    """Keyword arguments and functions for k-bit loading that were removed.

    ## What it does

    Reports `load_in_4bit` and `load_in_8bit` in `from_pretrained` with transformers 5, for every value. If only some paths pass
    one, it is a warning, and a file that reads versions is not reported. Also reports `bnb_4bit_*` there, a `TorchAoConfig`
    made from a string, and the import of `prepare_model_for_int8_training` with PEFT from 0.10 on.

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
        for call, steps in source.steps_at(Action.LOAD) if five else ():
            for name in FLAGS:
                given = [argument for step in steps if (argument := step.call.argument(name)) is not None]
                always = len(given) == len(steps) and is_certain(source, call, given[0])
                known = call.callee.startswith(("transformers.", "peft."))
                if given and known and (always or not _VERSION.search(_STORY.sub("", source.text))):
                    yield self.violation(
                        f"from_pretrained takes no {name} any more: a TypeError" + ("" if always else " where it is passed"),
                        source.at_line(given[0].whole.line, name),
                        surface=Surface.SOURCE,
                        severity=Severity.ERROR if always else Severity.WARNING,
                        consequence=None if always else Consequence.FRAGILE,
                        evidence={"transformers": source.versions.get("transformers")},
                        fix=_fix(source, call, given[0]) if always else Fix("pass a BitsAndBytesConfig", Safety.DISPLAY),
                    )
        yield from self._alone(source) if five else ()
        for config in source.calls_of("transformers.TorchAoConfig") if five else ():
            if isinstance(config.value("quant_type"), str):
                yield self.violation(
                    "TorchAoConfig takes no text any more: a ValueError",
                    source.at(config),
                    surface=Surface.SOURCE,
                    evidence={"quant_type": config.value("quant_type")},
                    fix=Fix("pass a config of torchao.quantization", Safety.DISPLAY),
                )
        for name, local in source.imports:
            if name == "peft.prepare_model_for_int8_training" and number(source.versions.get("peft", "1")) >= (0, 10):
                yield self.violation(
                    "peft has no prepare_model_for_int8_training any more: an ImportError",
                    source.at_line(source.line_of(local), "import"),
                    surface=Surface.SOURCE,
                    fix=Fix("use prepare_model_for_kbit_training", Safety.DISPLAY),
                )

    def _alone(self, source: SourceFacts) -> Iterator[Violation]:
        """Yield one violation for each load that passes arguments of the config, and none of ``FLAGS``."""
        for call, steps in source.steps_at(Action.LOAD):
            named = call.callee.startswith(("transformers.", "peft."))
            if not named or any(step.call.argument(flag) for step in steps for flag in FLAGS):
                continue
            known = QUANTIZATION_ARGUMENTS["BitsAndBytesConfig"]
            given = [one for one in call.arguments if one.name in known and all(step.call.argument(one.name) for step in steps)]
            if given:
                title, edits = "pass it to the BitsAndBytesConfig", into_given_config(source, call, given)
                yield self.violation(
                    f"from_pretrained takes no {given[0].name}, which is an argument of BitsAndBytesConfig: a TypeError",
                    source.at_line(given[0].whole.line, given[0].name),
                    surface=Surface.SOURCE,
                    evidence={"transformers": source.versions.get("transformers"), "arguments": [one.name for one in given]},
                    fix=Fix(title, Safety.UNSAFE, edits) if edits else Fix(title, Safety.DISPLAY),
                )


def _fix(source: SourceFacts, call: Call, argument: Argument) -> Fix:
    """Return the fix: False and None are removed, True becomes a config. A value set elsewhere is display only."""
    inside = call.span.start <= argument.whole.start < call.span.end
    # a name may hold a value of the command line
    inside = inside and source.code_of(argument.span) in ("True", "False", "None")
    other = next(name for name in FLAGS if name != argument.name)
    known = QUANTIZATION_ARGUMENTS["BitsAndBytesConfig"]
    beside = [one for one in call.arguments if one.name in known and one.name not in FLAGS]
    if argument.value is False or argument.value is None:
        title = f"leave {argument.name} out"
        edits = source.remove_argument(argument) if inside and not beside else ()  # transformers would refuse the others next
        return Fix(title, Safety.SAFE, edits) if edits else Fix(title, Safety.DISPLAY)
    title = "pass a BitsAndBytesConfig"
    if argument.value is not True or not inside or call.gives("quantization_config") or call.value(other) is True:
        return Fix(title, Safety.DISPLAY)
    edits, adds = into_new_config(source, call, argument, beside)
    return Fix(title, Safety.UNSAFE if adds else Safety.SAFE, edits) if edits else Fix(title, Safety.DISPLAY)
