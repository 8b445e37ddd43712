"""Rule KB703: mixed-shard-dtypes."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.context import Strategy
from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts, ParameterFacts
    from kbitlint.facts.source import SourceFacts
    from kbitlint.facts.training import Training
    from kbitlint.facts.values import Call, Span


class MixedShardDtypes(Rule):
    """Parameters of several dtypes in one unit that FSDP shards together.

    ## What it does

    Under FSDP1, reports each layer, and the rest of the model, whose parameters have more than one dtype. A packed
    weight counts with its storage dtype. If Trainer wraps a PeftModel, trainable leaf modules are units of their own,
    so their dtype may differ. If it is unknown what wraps the model, adapters of another dtype are a warning.

    Under FSDP2, only the trainable parameters of a unit must agree. Trainer makes a PeftModel one unit. Nothing is
    reported with mixed precision and no 4-bit weights: accelerate then casts trainable parameters to float32 first.

    In a script that is launched with FSDP1, reports the call that makes the dtype of frozen parameters another than that of the
    4-bit storage.

    ## Why is this bad?

    FSDP1 flattens a unit into one tensor: `Must flatten tensors with uniform dtype`. FSDP2 reduces the gradients of a
    unit together: `FSDP expects uniform original parameter dtype`. Both raise before the first step.

    ## Example

    `prepare_model_for_kbit_training` on a model with `bnb_4bit_quant_storage=torch.bfloat16`: norms become float32
    beside bfloat16 storage.

    ## Fix

    Use one dtype: no `prepare_model_for_kbit_training`, and `get_peft_model(..., autocast_adapter_dtype=False)`.

    ## Fix safety

    Display only: the choice of the dtype is the user's.

    ## References

    - https://github.com/huggingface/trl/issues/1723
    - https://github.com/hiyouga/LlamaFactory/issues/7993
    - https://github.com/meta-llama/llama-cookbook/issues/974
    """

    meta: ClassVar[Meta] = Meta(
        code="KB703",
        slug="mixed-shard-dtypes",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )
    needs_strategy: ClassVar[bool] = True

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each unit with several dtypes."""
        by_trainer = context.sets_training_mode is True and model.has_adapters
        if context.strategy is Strategy.FSDP1:
            for path, parameters in model.by_layer().items():
                yield from self._flattened(path, [p for p in parameters if p.floating], own_units=by_trainer)
        if context.strategy is Strategy.FSDP2 and not _upcast(model, context):
            units = {"": list(model.parameters)} if by_trainer else model.by_layer()
            for path, parameters in units.items():
                trained = [parameter for parameter in parameters if parameter.requires_grad]
                if len({parameter.dtype for parameter in trained}) > 1:
                    yield self._violation(path, trained, "trainable parameters that FSDP2 reduces together have", certain=True)

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each call that gives a model with packed weights a second dtype under FSDP1."""
        found: dict[Span, tuple[Call, tuple[str, str]]] = {}
        for trained in source.trained(quantized=True):
            pairs = {pair for training in trained.paths for pair in [_mixed(training)]}
            if None not in pairs and trained.certain:
                call, dtypes = next(pair for pair in pairs if pair is not None)
                found.setdefault(call.span, (call, dtypes))
        for call, (storage, dtype) in found.values():
            yield self.violation(
                f"FSDP1 flattens {storage} storage and {dtype} parameters of a layer together, and refuses two dtypes",
                source.at(call),
                surface=Surface.SOURCE,
                evidence={"storage": storage, "dtype": dtype},
                fix=Fix("give them one dtype", Safety.DISPLAY),
            )

    def _flattened(self, path: str, parameters: list[ParameterFacts], *, own_units: bool) -> Iterator[Violation]:
        rest = [p for p in parameters if not (p.requires_grad and p.path.endswith(".weight"))]
        certain = len({parameter.dtype for parameter in rest}) > 1
        if certain or (not own_units and len({parameter.dtype for parameter in parameters}) > 1):
            shown = rest if certain else parameters
            unless = "" if certain else " unless PEFT's wrap policy keeps adapters apart"
            yield self._violation(path, shown, f"parameters that FSDP1 flattens together{unless} have", certain=certain)

    def _violation(self, path: str, parameters: Iterable[ParameterFacts], what: str, *, certain: bool) -> Violation:
        first: dict[str, str] = {}
        for parameter in parameters:
            first.setdefault(parameter.dtype, parameter.path)
        return self.violation(
            f"{what} {len(first)} dtypes: {', '.join(sorted(first))}",
            Location(path),
            severity=Severity.ERROR if certain else Severity.WARNING,
            evidence={"first_of_each": dict(sorted(first.items()))},
            fix=Fix("give them one dtype", Safety.DISPLAY),
        )


def _mixed(training: Training) -> tuple[Call, tuple[str, str]] | None:
    """Return the call that decides the dtype beside packed weights, with both dtypes, if they differ; else None."""
    model = training.model
    config, call = model.quantization, model.prepared or model.load
    if not training.flattened or not model.packed or model.bits != 4 or config is None or call is None:
        return None
    storage = config.dtype("bnb_4bit_quant_storage")
    if not (isinstance(storage, str) and isinstance(model.dtype, str)) or "float" not in storage or storage == model.dtype:
        return None
    return call, (storage, model.dtype)


def _upcast(model: ModelFacts, context: TrainingContext) -> bool:
    """Return whether accelerate first casts trainable parameters to float32: with mixed precision and no 4-bit weight."""
    packed = any(layer.packing.method == "bitsandbytes" and layer.packing.bits == 4 for layer in model.quantized)
    return not packed and context.autocast_dtype in ("bfloat16", "float16")
