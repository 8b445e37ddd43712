"""Rule KB501: nothing-quantized."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.guards import is_read
from kbitlint.facts.source import Action
from kbitlint.rule import Meta, Rule
from kbitlint.upstream.quantization import QUANTIZATION_CONFIGS
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts
    from kbitlint.facts.source import SourceFacts
    from kbitlint.facts.values import Call

#: arguments that load a model quantized, or may
_QUANTIZES = ("quantization_config", "load_in_4bit", "load_in_8bit", "config")
#: a line that begins another scope, which may not know the config's name
_SCOPE = re.compile(r"^(?:async def |def |class |if __name__)", re.MULTILINE)


class NothingQuantized(Rule):
    """No layer of the model is quantized.

    ## What it does

    Reports a model in which no layer holds packed weights. Only the tensors count, even if the config or flags of the
    model record a quantization method.

    In a script, reports a quantization config whose name is never read, before a model is loaded without one.

    ## Why is this bad?

    The model takes its full 16 or 32 bits per parameter. The helper functions for k-bit training then do the wrong
    thing too: PEFT's `prepare_model_for_kbit_training` casts every parameter to float32 and enables no checkpointing.

    ## Example

    Falcon with bitsandbytes: its layers are `FalconLinear`, a subclass of `nn.Linear`, which bitsandbytes does not
    replace. Or a quantization config that is not passed to `from_pretrained`.

    ## Fix

    Load with a `quantization_config`. To audit a checkpoint that is quantized at load, pass `--quantize nf4` to
    kbitlint.

    ## Fix safety

    Unsafe in a script. Display only for a model: a loaded one cannot be quantized in place.

    ## References

    - https://github.com/huggingface/peft/issues/1149
    - https://github.com/huggingface/peft/issues/760
    - https://github.com/bitsandbytes-foundation/bitsandbytes/issues/1569
    """

    meta: ClassVar[Meta] = Meta(
        code="KB501",
        slug="nothing-quantized",
        severity=Severity.WARNING,
        consequence=Consequence.COSTS_MEMORY,
        since="0.1.0",
    )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield at most one violation, on the model as a whole."""
        if model.quantized:
            return
        claim = model.claims_quantization
        message = f"no layer is quantized, although the model is recorded as {claim}" if claim else "no layer is quantized"
        title = "load it with a quantization_config (kbitlint check --quantize nf4 audits it as if)"
        yield self.violation(
            message,
            Location(),
            evidence={"recorded_method": claim, "parameters": model.numel},
            fix=Fix("choose a method that replaces this model's layers" if claim else title, Safety.DISPLAY),
        )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each quantization config whose name is never read, before a load without quantization."""
        configs = [
            (call, name)
            for call in (source.calls if source.dialect == "python" else ())
            if call.callee.rpartition(".")[2] in QUANTIZATION_CONFIGS and call.span.start < len(source.own_text)
            if (name := source.name_of(call)) and not is_read(source.text, name)
        ]
        loads = source.steps_at(Action.LOAD) if configs else ()
        plain = [call for call, steps in loads if _is_plain(call) and not any(isinstance(step.detail, str) for step in steps)]
        for config, name in configs:
            load = next((one for one in plain if one.span.start > config.span.start), None)
            if load is not None:
                yield self.violation(
                    f"{name} is made and never used: the model loads without it",
                    source.at(config),
                    surface=Surface.SOURCE,
                    evidence={"config": config.callee, "load": source.at(load).line},
                    fix=_fix(source, config, load, name),
                )


def _is_plain(call: Call) -> bool:
    """Return whether a load of a model certainly passes no quantization."""
    model = call.callee.startswith("transformers.Auto") and "Config" not in call.callee
    return model and call.complete and not any(call.argument(name) for name in _QUANTIZES)


def _fix(source: SourceFacts, config: Call, load: Call, name: str) -> Fix:
    title = f"pass quantization_config={name} to from_pretrained"
    if _SCOPE.search(source.text, config.span.end, load.span.start):
        return Fix(title, Safety.DISPLAY)
    return Fix(title, Safety.UNSAFE, source.set_argument(load, "quantization_config", name))
