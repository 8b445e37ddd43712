"""Rule KB521: swallowed-quantization-argument."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.values import STORED
from kbitlint.rule import Meta, Rule
from kbitlint.upstream.misspelt import meant_argument
from kbitlint.upstream.quantization import NEUTRAL, QUANTIZATION_ARGUMENTS, method_named
from kbitlint.upstream.versions import number
from kbitlint.violation import Consequence, Edit, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.checkpoint import CheckpointFacts
    from kbitlint.facts.source import SourceFacts

#: keys of a stored config that are no argument of a class in ``METHODS``
_KEYS = {"quant_method", "inference", "weights", "activation_scheme", "store_master_weights", "linear_class"}


class SwallowedQuantizationArgument(Rule):
    """An argument of a quantization config that its class does not know and silently drops.

    ## What it does

    Reports unknown arguments of `BitsAndBytesConfig`, and unknown keys of a bitsandbytes `quantization_config` in
    config.json. With transformers 5, also reports unknown arguments of the configs of gptq, awq, hqq, quanto, eetq,
    torchao and mxfp4.

    ## Why is this bad?

    The class takes `**kwargs` and logs unknown names at a level that is hidden by default. The intended setting keeps
    its default. A misspelt compute dtype is float32. A misspelt `load_in_8bit` creates a 4-bit model, because
    transformers 5 quantizes to 4 bits if neither flag is set.

    In transformers 4, `use_exllama=False` for GPTQ avoided kernels without a backward pass. It is dropped now, and
    `backend` decides instead.

    ## Example

    `BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_type=torch.bfloat16)`.

    ## Fix

    Use the intended name, if a similar one exists.

    ## Fix safety

    Unsafe: the argument takes effect for the first time. Display only if no similar name exists, or if it is already
    set.

    ## References

    - https://github.com/bitsandbytes-foundation/bitsandbytes/issues/2077
    - https://github.com/huggingface/transformers/issues/47378
    """

    meta: ClassVar[Meta] = Meta(
        code="KB521",
        slug="swallowed-quantization-argument",
        severity=Severity.WARNING,
        consequence=Consequence.TRAINS_WRONG,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each argument that the class drops."""
        five = number(source.versions.get("transformers", "5")) >= (5,)
        for forms in source.forms_of(*(f"transformers.{name}" for name in QUANTIZATION_ARGUMENTS)):
            config = forms[0].callee.rpartition(".")[2]
            known = QUANTIZATION_ARGUMENTS[config]
            if config != "BitsAndBytesConfig" and not five:
                continue
            passed = {argument.whole: argument for form in forms for argument in form.arguments}
            given = {argument.name for argument in passed.values()}
            for argument in passed.values():
                name = argument.name
                if name in known or name.startswith("_") or name.isdigit() or (config, name, argument.value) in NEUTRAL:
                    continue
                meant = meant_argument(name, known)
                edits = source.rename_argument(argument, meant) if meant is not None and meant not in given else ()
                yield self.violation(
                    f"{config} knows no {name} and drops it",
                    source.at_line(argument.whole.line, name),
                    surface=Surface.SOURCE,
                    evidence={"argument": name, "meant": meant},
                    fix=Fix(f"it is called {meant}", Safety.UNSAFE, edits) if edits else Fix("leave it out", Safety.DISPLAY),
                )

        yield from self._stored(source) if five else ()

    def _stored(self, source: SourceFacts) -> Iterator[Violation]:
        """Yield one violation for each key that a script sets in a stored config, and that no class knows."""
        known = {name for names in QUANTIZATION_ARGUMENTS.values() for name in names} | _KEYS
        for call in source.calls_of(STORED):
            for argument in call.arguments:
                if argument.name not in known:
                    yield self.violation(
                        f"no quantization config knows {argument.name}, and it is dropped",
                        source.at_line(argument.whole.line, argument.name),
                        surface=Surface.SOURCE,
                        evidence={"argument": argument.name, "meant": None},
                        fix=Fix('for GPTQ, set backend = "auto_trainable"', Safety.DISPLAY),
                    )

    def check_files(self, checkpoint: CheckpointFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each key that the class drops."""
        quantization = checkpoint.quantization or {}
        if quantization.get("quant_method") != "bitsandbytes":
            return
        known = method_named("bitsandbytes").arguments
        for name in sorted(quantization):
            if name not in known and name != "quant_method" and not name.startswith("_"):
                meant = meant_argument(name, known)
                edit = Edit("rename-json-key", "config.json", {"key": f"quantization_config.{name}", "to": meant})
                yield self.violation(
                    f"BitsAndBytesConfig knows no {name} and drops it",
                    Location(f"quantization_config.{name}", "config.json"),
                    surface=Surface.FILES,
                    evidence={"argument": name, "meant": meant},
                    fix=Fix(f"it is called {meant}", Safety.UNSAFE, (edit,))
                    if meant is not None and meant not in quantization
                    else Fix("leave it out", Safety.DISPLAY),
                )
