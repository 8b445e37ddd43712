"""Rule KB526: overruled-quantization-config."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.guards import is_default
from kbitlint.facts.source import Action
from kbitlint.facts.values import Call
from kbitlint.rule import Meta, Rule
from kbitlint.upstream.quantization import QUANTIZATION_CONFIGS, method_named
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts, Step


class OverruledQuantizationConfig(Rule):
    """A quantization config is passed for a checkpoint that is stored quantized.

    ## What it does

    Reports `quantization_config=` in the load of a checkpoint whose config.json has a `quantization_config` of its own.
    The config.json is read from the checkpoint's folder or from the Hub's local cache. Other checkpoints are not
    checked.

    A config of the same method is a warning, because transformers ignores it. A config of another method is an error,
    and so is `None` for an `AutoModel` class and a bitsandbytes checkpoint. Configs that only set how a gptq, awq, fp8
    or mxfp4 checkpoint is loaded take effect and are not reported.

    ## Why is this bad?

    transformers keeps the checkpoint's config and only warns. The compute dtype, the list of skipped modules and even
    the number of bits that are passed have no effect. A 4-bit checkpoint that is loaded with `load_in_8bit=True` gets
    4-bit layers. For another method, transformers raises a ValueError.

    An explicit `None` removes the stored config. 4-bit weights then fit no layer, and 8-bit integers are used as the
    weights.

    ## Example

    `from_pretrained('unsloth/llama-3-8b-bnb-4bit', quantization_config=BitsAndBytesConfig(load_in_8bit=True))`.

    ## Fix

    Remove the argument, or load the unquantized checkpoint.

    ## Fix safety

    Unsafe for `None`, which may have requested an unquantized model. Display only otherwise: both checkpoints are
    possible.

    ## References

    - https://github.com/huggingface/transformers/issues/47378
    - https://github.com/huggingface/transformers/issues/25901
    - https://github.com/unslothai/unsloth/issues/39
    """

    meta: ClassVar[Meta] = Meta(
        code="KB526",
        slug="overruled-quantization-config",
        severity=Severity.WARNING,
        consequence=Consequence.TRAINS_WRONG,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each config, or None, that is passed beside a stored config on every path."""
        seen: set[tuple[int, object]] = set()
        for call, steps in source.steps_at(Action.LOAD):
            argument = call.argument("quantization_config")
            stored = steps[0].detail
            outcomes = {_outcome(step) for step in steps}
            outcome = next(iter(outcomes))
            if argument is None or outcome is None or len(outcomes) > 1:
                continue
            named = call.argument("pretrained_model_name_or_path")
            if named is not None and is_default(source.text, source.code_of(named.span)):
                continue  # a caller, who passes another checkpoint, decides
            if source.dialect == "axolotl":
                continue  # it builds its config from the stored one (src/axolotl/loaders/model.py)
            if (argument.whole.line, outcome) in seen:
                continue  # another load of the same arguments
            seen.add((argument.whole.line, outcome))
            severity, consequence, what = outcome
            if source.dialect == "llamafactory":  # src/llamafactory/model/model_utils/quantization.py
                what = "`quantization_bit` will not affect on the PTQ-quantized models"
                severity, consequence = Severity.WARNING, Consequence.TRAINS_WRONG
            inside = call.span.start <= argument.whole.start < call.span.end
            literal = inside and source.code_of(argument.span) == "None"
            title = "leave the argument out, or load the unquantized checkpoint"
            edits = source.remove_argument(argument) if literal else ()
            yield self.violation(
                f"the checkpoint is stored quantized ({stored}), and {what}",
                source.at_line(argument.whole.line, "quantization_config"),
                surface=Surface.SOURCE,
                severity=severity,
                consequence=consequence,
                evidence={"stored": stored},
                fix=Fix(title, Safety.UNSAFE, edits) if edits else Fix(title, Safety.DISPLAY),
            )


def _outcome(step: Step) -> tuple[Severity, Consequence, str] | None:
    """Return how transformers treats the argument beside the stored config; None if it is accepted or not known."""
    stored = step.detail
    argument = step.call.argument("quantization_config")
    if argument is None or not isinstance(stored, str):
        return None
    if argument.value is None and stored == "bitsandbytes" and ".Auto" in step.call.callee:
        if step.before.bits == 8:
            wrong = "without its config the integers are taken for weights"
            return Severity.ERROR, Consequence.TRAINS_WRONG, wrong
        return Severity.ERROR, Consequence.FAILS, "without its config it does not load: a RuntimeError"
    if not isinstance(argument.value, Call):
        return None
    name = argument.value.callee.rpartition(".")[2]
    asked = QUANTIZATION_CONFIGS.get(name)
    if asked is None or asked == "auto-round" or (asked, stored) == ("fp8", "mxfp8"):
        return None
    if asked != stored:
        return Severity.ERROR, Consequence.FAILS, f"a {name} for it is refused: a ValueError"
    if method_named(asked).takes_attributes:
        return None
    return Severity.WARNING, Consequence.TRAINS_WRONG, "its config wins over the one that is passed"
