"""Rule KB710: parameter-without-data."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts
    from kbitlint.facts.source import SourceFacts


class ParameterWithoutData(Rule):
    """Parameters on the meta device in a model that otherwise has its weights.

    ## What it does

    Reports parameters without data if other parameters have data. A model that is on the meta device as a whole, as for
    an audit without weights, is not reported.

    Frozen weights that accelerate loads for each call are not reported either, because they train through. Trainable
    parameters among them are reported, and so are 4-bit weights, which accelerate loads without their quantization
    state.

    ## Why is this bad?

    Some kernels refuse a meta tensor. Others return uninitialised memory (torch 2.13 on the CPU). The forward pass
    raises, or the loss is garbage and the backward pass raises.

    `get_peft_model` creates adapters on the device of the base layer's weight, without a message if that is meta. Such
    an adapter never gets data.

    A trainable parameter without elements is reported as well. Those of ZeRO-3 and FSDP are not: their elements are elsewhere.

    A script is checked for `get_peft_model(..., low_cpu_mem_usage=True)` before a training. PEFT means it for adapters whose
    saved weights are loaded next.

    ## Example

    Adapters that are attached while part of the base is still under `init_empty_weights`, or offloaded to disk by a
    `device_map`.

    ## Fix

    Load the whole base first, and attach the adapters afterwards.

    ## Fix safety

    Display only: kbitlint has no data for these parameters.

    ## References

    - https://github.com/huggingface/peft/issues/3415
    - https://github.com/huggingface/accelerate/issues/1626
    """

    meta: ClassVar[Meta] = Meta(
        code="KB710",
        slug="parameter-without-data",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each parameter without data in a model with weights."""
        yield from self._empty(model)
        devices = sorted({p.device for p in model.parameters})
        weights = [p for p in model.parameters if p.packed] or model.parameters
        if "meta" not in devices or all(p.device == "meta" for p in weights):  # some classes create a few tensors elsewhere
            return
        brought = tuple(f"{path}." for path in model.offloaded)
        stateful = {q.path for q in model.quantized if (q.packing.method, q.packing.bits) == ("bitsandbytes", 4)}
        for parameter in model.parameters:
            if parameter.device != "meta":
                continue
            through = parameter.path.startswith(brought)
            stateless = through and parameter.packed and parameter.module in stateful
            if parameter.requires_grad or stateless or not through:
                what = "adapter" if parameter.adapter else "parameter"
                yield self.violation(
                    "the 4-bit weight is brought for each call, and its quantization state is not"
                    if stateless
                    else f"{what} is on the meta device: it has no data",
                    Location(parameter.path),
                    evidence={"shape": list(parameter.shape), "devices": devices, "trainable": parameter.requires_grad},
                    fix=Fix("load the base as a whole before adapters are attached", Safety.DISPLAY),
                )

    def _empty(self, model: ModelFacts) -> Iterator[Violation]:
        """Yield one violation for each trainable parameter without elements: a warning outside of adapters."""
        alone = all(not parameter.numel for parameter in model.trainable)
        for parameter in model.trainable:
            if parameter.path in model.empty:
                added = parameter.adapter and not parameter.outside
                yield self.violation(
                    f"{'adapter' if added else 'parameter'} has no elements: its shape is {list(parameter.shape)}",
                    Location(parameter.path),
                    severity=Severity.ERROR if added or alone else Severity.WARNING,
                    consequence=Consequence.TRAINS_NOTHING,
                    evidence={"shape": list(parameter.shape)},
                    fix=Fix("create it with its size, or load its values", Safety.DISPLAY),
                )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each training whose adapters are attached without data on every path."""
        for trained in source.trained():
            attached = [model.adapters.by for model in trained.models if model.adapters is not None]
            empty = all(call.callee in _ATTACHES and call.value("low_cpu_mem_usage") is True for call in attached)
            if trained.certain and empty and len(attached) == len(trained.models):
                yield self.violation(
                    "the adapters are attached on the meta device, and nothing gives them data before they train",
                    source.at(attached[0]),
                    surface=Surface.SOURCE,
                    fix=Fix("leave low_cpu_mem_usage=True out: it is for adapters that are loaded next", Safety.DISPLAY),
                )


#: calls whose ``low_cpu_mem_usage`` creates adapters without data
_ATTACHES = ("get_peft_model", "peft.get_peft_model")
