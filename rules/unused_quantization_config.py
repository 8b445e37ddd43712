"""Rule KB545: unused-quantization-config."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.source import Action
from kbitlint.rule import Meta, Rule
from kbitlint.upstream.quantization import QUANTIZATION_CONFIGS
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts
    from kbitlint.facts.values import Call

#: arguments that load a model quantized without a config object
_OTHERWISE = ("quantization_config", "load_in_4bit", "load_in_8bit", "config")
_PROSE = re.compile(r"(\"\"\"|\'\'\').*?\1|#[^\n]*", re.DOTALL)


class UnusedQuantizationConfig(Rule):
    """A quantization config that no call receives.

    ## What it does

    Reports a quantization config that is bound to a name which the file never reads, where the file loads a model without a
    quantization of its own.

    ## Why is this bad?

    The model loads unquantized, in the dtype of its checkpoint: three to four times the memory that the script plans for.
    Nothing reports it.

    ## Example

    `bnb_config = BitsAndBytesConfig(load_in_4bit=True)`, then `AutoModelForCausalLM.from_pretrained(name)`.

    ## Fix

    Pass it: `from_pretrained(name, quantization_config=bnb_config)`.

    ## Fix safety

    Unsafe: the weights of the loaded model change.

    ## References

    - https://huggingface.co/docs/transformers/quantization/bitsandbytes
    - https://github.com/huggingface/trl/issues/1216
    """

    meta: ClassVar[Meta] = Meta(
        code="KB545",
        slug="unused-quantization-config",
        severity=Severity.ERROR,
        consequence=Consequence.TRAINS_WRONG,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each quantization config whose name is never read."""
        if source.dialect != "python":
            return
        configs = [
            (call, name)
            for call in source.calls
            if call.callee.rpartition(".")[2] in QUANTIZATION_CONFIGS and call.span.start < len(source.own_text)
            if (name := source.name_of(call)) and not _is_read(source, name)
        ]
        plain = [call for call, steps in source.steps_at(Action.LOAD) if configs and _is_plain(call, len(steps))]
        for config, name in configs:
            following = [load for load in plain if load.span.start > config.span.start]
            if following:
                yield self.violation(
                    f"{name} is passed to no call, and the model loads unquantized",
                    source.at(config),
                    surface=Surface.SOURCE,
                    evidence={"config": name, "load": source.at(following[0]).line},
                    fix=_fix(source, following[0], config, name),
                )


def _is_read(source: SourceFacts, name: str) -> bool:
    """Return whether a name occurs in code other than as the target of an assignment or as a keyword."""
    text = _PROSE.sub("", source.text)
    return re.search(rf"(?<![\w.]){re.escape(name)}\b(?![ \t]*=(?!=))", text) is not None or "locals()" in text


def _is_plain(call: Call, ways: int) -> bool:
    """Return whether a load certainly passes no quantization."""
    model = call.callee.startswith("transformers.Auto") and "Config" not in call.callee
    return bool(ways) and model and call.complete and not any(call.argument(name) for name in _OTHERWISE)


def _fix(source: SourceFacts, load: Call, config: Call, name: str) -> Fix:
    title = f"pass quantization_config={name} to from_pretrained"
    between = source.text[config.span.end : load.span.start]
    if re.search(r"^(?:async )?def |^class |^if __name__", between, re.MULTILINE):  # another scope may not know the name
        return Fix(title, Safety.DISPLAY)
    return Fix(title, Safety.UNSAFE, source.set_argument(load, "quantization_config", name))
