"""Hand-written loops: a forward pass of a model without weights answers with a loss, and the first backward pass is audited."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kbitlint.model.layers import adapters
from kbitlint.rehearsal.inside.imports import after_import, replace
from kbitlint.rehearsal.stand_ins import hooks
from kbitlint.rehearsal.stand_ins.adapters import is_without_weights
from kbitlint.rehearsal.trainings.audits import audit_training
from kbitlint.rehearsal.trainings.trainers import TrainingReached

if TYPE_CHECKING:
    from kbitlint.rehearsal.inside.record import Record

#: backward passes after which a loop is left
_MOST = 200


class LoopLeft(BaseException):  # it leaves the script's loop, past every `except Exception`
    """A loop that goes on long after its first step."""


class _Loops:
    """The state of the forward passes of a script.

    Args:
        record: The record of the rehearsal.
    """

    def __init__(self, record: Record) -> None:
        self.record = record
        self.waiting: tuple[nn.Module, dict[str, Any], int] | None = None
        """The outermost module of the last pass with gradients, its inputs, and the line."""
        self.audited = weakref.WeakSet[nn.Module]()
        self.depth = 0
        self.passes = 0
        self.optimizers = weakref.WeakSet[Any]()


def install(record: Record) -> None:
    """Answer forward and backward passes of models without weights, until the process ends."""
    loops = _Loops(record)
    replace(nn.Module, "__call__", lambda original: _call(loops, original))
    replace(Tensor, "backward", lambda original: _backward(loops, original))
    replace(torch.optim.Optimizer, "__init__", lambda original: _optimizer(loops, original))
    for name in ("unscale_", "step", "update"):
        replace(torch.amp.GradScaler, name, functools.partial(_scaling, loops))
    replace(torch.utils.data.DataLoader, "__init__", _loader)
    after_import("bitsandbytes.optim.optimizer", lambda module: _bitsandbytes(loops, module))


def _bitsandbytes(loops: _Loops, module: Any) -> None:
    replace(module.Optimizer8bit, "step", functools.partial(_stepping, loops))


def _loader(original: Any) -> Any:
    """Return a constructor of data loaders that load in this process. It checks its arguments as torch's does."""

    @functools.wraps(original)
    def __init__(self: Any, *arguments: Any, **options: Any) -> None:  # noqa: N807  # the name that torch's own has
        original(self, *arguments, **options)
        self.__dict__.update(num_workers=0, persistent_workers=False, prefetch_factor=None, timeout=0)

    return __init__


def _optimizer(loops: _Loops, original: Any) -> Any:
    @functools.wraps(original)
    def __init__(self: Any, *arguments: Any, **options: Any) -> None:  # noqa: N807  # the name that torch's own has
        original(self, *arguments, **options)
        loops.optimizers.add(self)

    return __init__


def _call(loops: _Loops, original: Any) -> Any:
    @functools.wraps(original)
    def __call__(self: nn.Module, *arguments: Any, **options: Any) -> Any:  # noqa: N807  # see above
        if loops.record.paused or not is_without_weights(self):
            return original(self, *arguments, **options)
        outermost = loops.depth == 0
        if outermost and torch.is_grad_enabled() and not _is_part(self, loops.waiting):
            loops.waiting = (self, _bound(self, arguments, options), loops.record.line())
        if not _is_of_transformers(self):
            loops.depth += 1
            try:
                return original(self, *arguments, **options)
            finally:
                loops.depth -= 1
        inputs = _bound(self, arguments, options)
        return hooks.fire(loops.record, self, shape_of(inputs), answer(self, inputs))

    return __call__


def _is_part(module: nn.Module, waiting: tuple[nn.Module, dict[str, Any], int] | None) -> bool:
    """Return whether a module is a part of the model of the last pass: a loss may call the head by itself."""
    return waiting is not None and waiting[0] is not module and any(part is module for part in waiting[0].modules())


def _is_of_transformers(module: nn.Module) -> bool:
    """Return whether a module is a model of transformers, PEFT or TRL, or a wrapper around one: its answer is known."""
    from transformers import PreTrainedModel  # imported by the script long ago

    base = adapters.base_of(module)
    return isinstance(base, PreTrainedModel) and (base is module or type(module).__module__.startswith(("peft.", "torch.")))


def _bound(module: nn.Module, arguments: Any, options: Any) -> dict[str, Any]:
    """Return the inputs by the names of the model's forward."""
    base = adapters.base_of(module) if _is_of_transformers(module) else module
    try:
        names = [name for name in inspect.signature(base.forward).parameters if name != "self"]
    except (TypeError, ValueError):
        names = []
    return {**dict(zip(names, arguments, strict=False)), **options}


def shape_of(inputs: dict[str, Any]) -> tuple[int, int]:
    """Return the sequences and tokens of a batch: those of its first tensor that has both."""
    given = next((value for value in inputs.values() if isinstance(value, Tensor) and value.dim() >= 2), None)
    return (given.shape[0], given.shape[1]) if given is not None else (1, 1)


def answer(module: nn.Module, inputs: dict[str, Any]) -> Any:
    """Return an output as the model's class returns it: a loss with a value, and logits without values.

    Args:
        module: The model.
        inputs: Its inputs, by name.
    """
    from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast  # see above

    base: Any = adapters.base_of(module)
    config, name = base.config, type(base).__name__
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    shape = shape_of(inputs)
    trains = torch.is_grad_enabled() and (
        any(parameter.requires_grad for parameter in module.parameters()) or hasattr(base, "_require_grads_hook")
    )
    dtype = next((p.dtype for p in base.parameters() if p.is_floating_point()), torch.float32)

    def empty(*sizes: int) -> Tensor:
        return torch.empty(sizes, dtype=dtype, device="meta", requires_grad=trains)

    if inputs.get("fused_lm_head"):
        return _fused(inputs, empty, trains=trains)
    width = int(getattr(text, "hidden_size", 1) or 1)
    states = tuple(empty(*shape, width) for _ in range(2)) if inputs.get("output_hidden_states") else None
    if "For" not in name and "LMHead" not in name:
        return BaseModelOutputWithPast(last_hidden_state=empty(*shape, width), hidden_states=states)
    labelled = inputs.get("labels") is not None or inputs.get("start_positions") is not None
    loss = torch.ones((), requires_grad=trains) * 1.0 if labelled else None
    if "SequenceClassification" in name or "ImageClassification" in name:
        logits = empty(shape[0], int(config.num_labels))
    else:
        target = inputs.get("labels")
        length = target.shape[1] if isinstance(target, Tensor) and target.dim() == 2 else shape[1]
        last = int(config.num_labels) if "TokenClassification" in name else int(getattr(text, "vocab_size", 2))
        logits = empty(shape[0], length, last)
    return CausalLMOutputWithPast(loss=loss, logits=logits, hidden_states=states)


def _fused(inputs: dict[str, Any], empty: Any, *, trains: bool) -> Any:
    """Return the output of a model to which TRL's ``add_fused_lm_head`` gave a head that returns log-probabilities."""
    output = sys.modules["trl.trainer.utils"].FusedCausalLMOutput  # type: ignore[attr-defined]  # whoever calls has it
    shifted = inputs.get("shift_labels")
    labels = inputs["labels"][:, 1:] if shifted is None else shifted
    names = {field.name for field in dataclasses.fields(output)} - {"loss", "aux_loss"}
    made = {name: empty(*labels.shape) for name in names}
    made |= {name: mask for name, mask in {"label_mask": labels != -100}.items() if name in names}
    return output(loss=torch.ones((), requires_grad=trains) * 1.0, **made)


def _backward(loops: _Loops, original: Any) -> Any:
    @functools.wraps(original)
    def backward(self: Tensor, *arguments: Any, **options: Any) -> Any:
        if loops.record.paused:
            return original(self, *arguments, **options)
        _reach(loops)
        made = original(self, *arguments, **options)
        if loops.waiting is not None:
            for parameter in loops.waiting[0].parameters():  # the pass ends at the answer, which depends on no parameter
                if parameter.requires_grad and parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
        return made

    return backward


def _holds_none(optimizer: Any) -> bool:
    """Return whether an optimizer holds a parameter without a value."""
    return any(parameter.is_meta for group in optimizer.param_groups for parameter in group["params"])


def _scaling(loops: _Loops, original: Any) -> Any:
    """Return a method of a gradient scaler that does nothing for parameters without values."""

    @functools.wraps(original)
    def method(self: Any, optimizer: Any = None, *arguments: Any, **options: Any) -> Any:
        known = optimizer if hasattr(optimizer, "param_groups") else None
        if loops.record.paused or not (any(map(_holds_none, loops.optimizers)) if known is None else _holds_none(known)):
            return original(self, optimizer, *arguments, **options)
        return None

    return method


def _stepping(loops: _Loops, original: Any) -> Any:
    """Return the step of an optimizer of bitsandbytes, whose kernels need values."""

    @functools.wraps(original)
    def step(self: Any, *arguments: Any, **options: Any) -> Any:
        return None if not loops.record.paused and _holds_none(self) else original(self, *arguments, **options)

    return step


def _reach(loops: _Loops) -> None:
    """Audit the model of the last pass at its first backward pass.

    Raises:
        TrainingReached: A Trainer runs, whose class has a training step of its own.
        LoopLeft: The loop has gone on for long.
    """
    if loops.waiting is None:
        return
    if loops.record.trainers:
        raise TrainingReached(loops.record.trainers[-1], loops.waiting[1])
    loops.passes += 1
    if loops.passes > _MOST:
        loops.record.note(f"a loop of the script was left after {_MOST} steps")
        raise LoopLeft
    module, inputs, line = loops.waiting
    if module not in loops.audited:
        loops.audited.add(module)
        audit_training(loops.record, module, inputs, _optimizer_of(loops, module), line)


def _optimizer_of(loops: _Loops, module: nn.Module) -> Any:
    """Return the newest optimizer that holds a parameter of the model; None if none does."""
    own = {id(parameter) for parameter in module.parameters()}
    holding = [
        one
        for one in loops.optimizers
        if any(id(parameter) in own for group in one.param_groups for parameter in group["params"])
    ]
    return holding[-1] if holding else None
