"""The recorder of a step: hooks that record which module of a twin runs, and its dtypes."""

from __future__ import annotations

import functools
import weakref
from dataclasses import field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kbitlint.facts.layers import short_name
from kbitlint.facts.trace import LayerFacts, PromotionFacts
from kbitlint.lazy_dataclass import dataclass
from kbitlint.model.inspect.walk import named_modules
from kbitlint.model.layers.norm_interface import HALF
from kbitlint.model.layers.replaced import replaced_layers
from kbitlint.model.layers.values import has_value
from kbitlint.model.trace.beside import Buffers, buffers_in, strays_in, weights_in
from kbitlint.model.trace.gradients import ForwardRecord
from kbitlint.model.trace.ledger import Ledger
from kbitlint.model.trace.stubs import BLANK
from kbitlint.model.trace.twin import originals_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kbitlint.facts.model import ModelFacts


@dataclass(slots=True)
class StepRecorder:
    """The record of a step while it runs."""

    twin: nn.Module
    ledger: Ledger
    paths: dict[int, str]
    """Module paths by the id of the module."""
    modules: dict[str, nn.Module]
    """Modules by their path."""
    passage: ForwardRecord = field(default_factory=ForwardRecord)
    running: list[str] = field(default_factory=list)
    """Paths of the modules that run, outermost first."""
    layers: dict[str, LayerFacts] = field(default_factory=dict)
    """The dtypes at the first entrance and exit of each layer of a stack, by path."""
    promotions: dict[str, PromotionFacts] = field(default_factory=dict)
    """Modules that return float32 for half-precision input, by path."""
    saved: dict[str, int] = field(default_factory=dict)
    """Bytes saved for the backward pass, by module path."""
    counted: dict[int, weakref.ref[Any]] = field(default_factory=dict)
    """The live storages that are counted already, by address."""
    replaced: set[str] = field(default_factory=set)
    """Places of the layers that ran although quantization has replaced them."""
    cutting: dict[str, None] = field(default_factory=dict)
    """Paths of the layers that got an input with a gradient, and whose kernel has none; in their order."""
    strays: dict[str, Tensor] = field(default_factory=dict)
    """Leaf tensors that require grad and that no module registers, by path."""
    buffers: Buffers = field(default_factory=dict)
    """The buffers that no adapter saves, as they were before the step."""
    moment: Callable[[str], None] | None = None
    """Receives the module and pass that run from now on. None observes nothing."""
    kept: Callable[[Tensor, str], None] | None = None
    """Receives each tensor that is saved for the backward pass, and the module's path. None observes nothing."""

    def tell(self) -> None:
        """Report the running module and pass to the observer, if there is one."""
        if self.moment is not None:
            self.moment(f"{self.where() or 'the model'}, {'backward' if self.ledger.in_backward else 'forward'}")

    def where(self) -> str:
        """Return the path of the innermost module that runs. It is empty between modules."""
        return self.running[-1] if self.running else ""


def prepared(twin: nn.Module, device: str, facts: ModelFacts, starts: frozenset[str] | None = None) -> StepRecorder:
    """Register recording hooks on a twin, and return its recorder.

    Args:
        twin: The copy of the model.
        device: The device whose kernels are simulated.
        facts: Facts of a walk over the model.
        starts: The trainable parameters that count as zero. None are all that hold zeros.
    """
    found = list(named_modules(twin))
    step = StepRecorder(twin, Ledger(device), {id(module): path for path, module in found}, dict(found))
    step.strays, step.buffers = strays_in(twin), buffers_in(twin) | weights_in(twin)
    step.ledger.where = step.ledger.zeros.where = step.where
    layers = {checkpoint.path for checkpoint in facts.checkpoints if checkpoint.is_layer} or _stacked(found)
    for path, module in found:
        _watch(module, path, step, is_layer=path in layers)
    for path, tensor in _zeros_in(found):
        if not tensor.requires_grad:
            step.ledger.zeros.add(tensor, path)
        elif starts is None or path in starts:
            step.ledger.zeros.add_start(tensor, path)
    _mark_blank(step, facts)
    for path in [layer.path for layer in facts.quantized if layer.repacked]:
        _watch_cut(step.modules.get(path), path, step)
    for facts_of_layer, layer in replaced_layers(twin):
        layer.register_forward_pre_hook(lambda _, __, place=facts_of_layer.place: step.replaced.add(place))
    for _, module in found:
        for tensor in (*module._parameters.values(), *module._buffers.values()):  # noqa: SLF001  # parameters and buffers of the module alone
            if tensor is not None:
                storage = tensor.untyped_storage()
                step.counted[storage._cdata] = weakref.ref(storage, functools.partial(_forget, step.counted, storage._cdata))  # noqa: SLF001  # the only identity of a storage
    return step


def _forget(counted: dict[int, weakref.ref[Any]], key: int, _: weakref.ref[Any]) -> None:
    """Forget a storage of the twin that a step frees, as bitsandbytes does with a bias. A later one may have its address."""
    counted.pop(key, None)


def _mark_blank(step: StepRecorder, facts: ModelFacts) -> None:
    """Let the stubs of layers that unpack to zeros only multiply with a tensor that counts as zeros."""
    for packed in facts.quantized:
        if packed.blank and packed.path in step.modules:
            marker = step.modules[packed.path].__dict__[BLANK] = torch.empty((), device="meta")
            step.ledger.zeros.add(marker, f"{packed.path}.weight")


def _zeros_in(found: list[tuple[str, nn.Module]]) -> Iterator[tuple[str, Tensor]]:
    """Yield (path, tensor of the twin) of each tensor that holds zeros in the original. Biases multiply nothing."""
    for path, module in found:
        original = next(originals_of(module), None)
        for name, tensor, own in _tensors_of(module, original) if original is not None else ():
            if name in _ADDED or tensor.requires_grad != own.requires_grad or own.is_meta or not own.numel():
                continue
            packed = isinstance(own, nn.Parameter) and not own.is_floating_point()
            if not packed and type(own) in (Tensor, nn.Parameter) and own.dtype is not torch.bool and not has_value(own):
                yield f"{path}.{name}" if path else name, tensor


#: Names of tensors that are added, not multiplied. Most tensors of zeros are these.
_ADDED = frozenset(["bias", "running_mean", "num_batches_tracked"])


def _tensors_of(module: nn.Module, original: nn.Module) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield (name, tensor of a module, the same tensor of its original) of its parameters and buffers."""
    for kind in ("_parameters", "_buffers"):
        theirs = dict(getattr(original, kind).items())  # those of a scripted module are no dictionary
        for name, tensor in vars(module)[kind].items():
            if tensor is not None and theirs.get(name) is not None:
                yield name, tensor, theirs[name]


def _stacked(found: list[tuple[str, nn.Module]]) -> set[str]:
    """Return the paths of the children of module lists: the layers of a model that does not support checkpointing."""
    return {
        f"{path}.{name}" for path, module in found if isinstance(module, nn.ModuleList) for name, _ in module.named_children()
    }


def _watch(module: nn.Module, path: str, step: StepRecorder, *, is_layer: bool) -> None:
    """Register the hooks of one module."""
    own = any(p is not None and p.is_floating_point() for p in module._parameters.values())  # noqa: SLF001  # parameters of the module alone

    def enter(_: nn.Module, __: tuple[Any, ...]) -> None:
        step.running.append(path)
        step.tell()
        if not torch.is_grad_enabled() and not step.ledger.in_backward:
            step.passage.entered_without_grad.add(path)

    def leave(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if step.running:
            step.running.pop()
            step.tell()
        if step.ledger.in_backward or output is None:
            return
        first = _first_floating(output)
        step.passage.gives_grad[path] = step.passage.gives_grad.get(path, False) or _requires_grad(output)
        if not (own or is_layer) or first is None:
            return
        incoming = _first_floating((*args, *kwargs.values()))
        if incoming is None:
            return
        if is_layer and path not in step.layers:
            step.layers[path] = LayerFacts(path, short_name(incoming.dtype), short_name(first.dtype))
        if own and incoming.dtype in HALF and first.dtype is torch.float32:
            step.promotions.setdefault(
                path, PromotionFacts(path, type(module).__name__, short_name(incoming.dtype), short_name(first.dtype))
            )

    module.register_forward_pre_hook(enter, prepend=True)
    module.register_forward_hook(leave, with_kwargs=True, always_call=True)


def _watch_cut(module: nn.Module | None, path: str, step: StepRecorder) -> None:
    """Record whether an input of a layer requires grad. In a reentrant checkpoint it does so in the backward pass."""

    def enter(_: nn.Module, args: tuple[Any, ...]) -> None:
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in _floating(args)):
            step.cutting[path] = None

    if module is not None:
        module.register_forward_pre_hook(enter)


def _floating(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _floating(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _floating(item)


def _first_floating(value: Any) -> Tensor | None:
    return next(_floating(value), None)


def _requires_grad(output: Any) -> bool:
    found = list(_floating(output))
    return not found or any(tensor.requires_grad for tensor in found)


def watched_in(
    step: StepRecorder, facts: ModelFacts, scalars: tuple[tuple[nn.Module, nn.Parameter], ...]
) -> list[ExpectedGradient]:
    """Return the parameters at which a gradient is expected, in the order of the walk. The ledger watches them from now on.

    Args:
        step: The recorder.
        facts: Facts of a walk over the model.
        scalars: (quantized layer, scalar) of each scalar in place of an adapter.
    """
    added = {parameter.path for parameter in facts.parameters if parameter.adapter}
    found: dict[int, ExpectedGradient] = {}
    for path, module in named_modules(step.twin):
        for name, parameter in module._parameters.items():  # noqa: SLF001  # parameters of the module alone, with their names
            if parameter is not None and parameter.requires_grad and id(parameter) not in found:
                full = f"{path}.{name}" if path else name
                found[id(parameter)] = ExpectedGradient(parameter, full, path, adapter=full in added, virtual=False)
    for module, scalar in scalars:
        path = step.paths[id(module)]
        found[id(scalar)] = ExpectedGradient(scalar, path, path, adapter=True, virtual=True)
    step.ledger.watched = {key: watched.parameter for key, watched in found.items()}
    return list(found.values())


@dataclass(frozen=True, slots=True)
class ExpectedGradient:
    """A parameter at which a gradient is expected, or a scalar in place of an adapter."""

    parameter: nn.Parameter
    path: str
    """The path of the parameter. For a scalar it is the path of the quantized layer."""
    owner: str
    """The path of the module that holds it."""
    adapter: bool
    """Whether it belongs to an adapter."""
    virtual: bool
    """Whether it is a scalar in place of an adapter that is not attached yet."""
