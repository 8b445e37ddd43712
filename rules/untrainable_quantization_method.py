"""KB524."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.source import Action, Loop
from kbitlint.facts.values import UNKNOWN
from kbitlint.rule import Meta, Rule
from kbitlint.upstream.quantization import method_named
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.checkpoint import CheckpointFacts
    from kbitlint.facts.model_state import ModelState
    from kbitlint.facts.source import SourceFacts

_WEIGHT_BITS = re.compile(r"(\d)weight", re.IGNORECASE)

TITLE = "quantize the unquantized checkpoint with a method that trains"


def _by_arguments(method: object, value: Callable[[str], object], layout: object) -> str | None:
    """Why a method does not train with these arguments; None where it does, or where they do not tell."""
    row = method_named(method)
    if not row.trains:
        return f"{method} cannot be trained through"
    if row.trains_with is not None:
        name, wanted = row.trains_with
        return None if value(name) in (wanted, UNKNOWN) else f"{method} cannot be trained through without {name}={wanted!r}"
    if method == "torchao" and isinstance(layout, str):
        found = _WEIGHT_BITS.search(layout)
        return None if found is not None and found[1] == "8" else f"torchao's {layout} cannot be trained through"
    return None


def _asked(model: ModelState) -> str | None:
    """The same for a model that a script loads."""
    config = model.quantization
    if not model.certain:
        return None
    if config is None:
        return _by_arguments(model.method, lambda _: UNKNOWN, None)
    layout = config.within("quant_type")
    if config.value("dequantize", unset=False) is not False:
        return None
    return _by_arguments(model.method, config.value, layout.callee.rpartition(".")[2] if layout is not None else None)


class UntrainableQuantizationMethod(Rule):
    """A quantization method that transformers cannot train through.

    ## What it does

    Reports checkpoints whose `quantization_config`, and scripts whose quantization config, names a method that
    declares itself untrainable in transformers 5.23: auto-round, fbgemm_fp8, gemma, higgs, nvfp4, quark, spqr, vptq
    and mxfp4, unless it is dequantized at load; torchao with weights of other than 8 bits; bitnet, fouroversix and
    fp_quant without the argument that makes them train.

    ## Why is this bad?

    Trainer refuses such a model: `that quantization method do not support training`. A loop of one's own fails in the
    backward pass or has none, because the kernels are made for inference. mxfp4 is dequantized silently where its
    kernels are missing, which makes it plain 16-bit LoRA: a warning.

    ## Example

    `AutoModelForCausalLM.from_pretrained(name, quantization_config=Mxfp4Config())` followed by a Trainer.

    ## Fix

    Load the unquantized checkpoint and quantize it with a method that trains, or dequantize at load.

    ## Fix safety

    Shown only.

    ## References

    - https://github.com/huggingface/transformers/issues/33361
    - https://github.com/huggingface/transformers/issues/26248
    - https://github.com/huggingface/transformers/issues/39969
    """

    meta: ClassVar[Meta] = Meta(
        code="KB524",
        slug="untrainable-quantization-method",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """One violation for each Trainer, or loop of the file, that is given such a model on every path."""
        own = (trained for trained in source.trained() if trained.paths[0].loop is Loop.OWN)
        # what asks an argument is refused by Trainer alone: some of it computes on unpacked weights
        named = (trained for trained in own if not method_named(trained.models[0].method).trains)
        given = [(trained.call, trained.models, Consequence.FRAGILE) for trained in named]
        for call, steps in source.steps_at(Action.TRAINER):
            given.append((call, tuple(step.before for step in steps), Consequence.FAILS))
        for call, models, consequence in given:
            reasons = {_asked(model) for model in models}
            reason = next(iter(reasons), None)
            if len(reasons) == 1 and reason is not None:
                fails = consequence is Consequence.FAILS and models[0].method != "mxfp4"
                yield self.violation(
                    reason,
                    source.at(call),
                    surface=Surface.SOURCE,
                    severity=Severity.ERROR if fails else Severity.WARNING,
                    consequence=None if fails else Consequence.FRAGILE,
                    evidence={"method": models[0].method},
                    fix=Fix(TITLE, Safety.DISPLAY),
                )

    def check_files(self, checkpoint: CheckpointFacts, context: TrainingContext) -> Iterator[Violation]:
        """At most one violation, on the key of config.json."""
        quantization = checkpoint.quantization or {}
        method, layout = quantization.get("quant_method"), quantization.get("quant_type")
        kind = layout.get("default") if isinstance(layout, Mapping) else None
        reason = _by_arguments(method, quantization.get, kind.get("_type") if isinstance(kind, Mapping) else None)
        if reason is not None:
            yield self.violation(
                reason,
                Location("quantization_config.quant_method", "config.json"),
                surface=Surface.FILES,
                severity=Severity.WARNING if method == "mxfp4" else Severity.ERROR,
                consequence=Consequence.COSTS_MEMORY if method == "mxfp4" else None,
                evidence={"method": method},
                fix=Fix(TITLE, Safety.DISPLAY),
            )
