"""The probe: one real training step on the model's device, which proves that a fixed model trains."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kbitlint.errors import KbitlintError, one_line
from kbitlint.model.batch import called, loss_of, training_batch
from kbitlint.model.inputs.plan import DOCUMENTED
from kbitlint.model.inspect.walk import collect
from kbitlint.model.layers import adapters
from kbitlint.model.trace.fitting import plan_for
from kbitlint.model.trace.step import runnable
from kbitlint.result import Probe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.model.inputs.plan import Plan


def probe(model: nn.Module, *, batch: int = 2, seq_len: int = 16, seed: int = 0, at_embeddings: bool = False) -> Probe:
    """Run one training step on random tokens, and check the loss, every gradient and every frozen parameter.

    The batch is the one on which the trace runs.

    If adapters are trained, AdamW makes a step as well. The model is restored afterwards: parameters, gradients, modes, buffers
    and the random state. A model without trainable parameters is probed at its input embeddings. A finite gradient there has
    passed through every layer.

    Args:
        model: A model with weights. One on the meta device gets a Probe with a failure.
        batch: Sequences in the batch.
        seq_len: Tokens in each sequence.
        seed: The seed of the tokens and of dropout.
        at_embeddings: Whether to freeze the whole model for the step and probe at the input embeddings.

    Returns:
        The result. An error of the step is in its ``failure``; it is not raised.
    """
    parameters = list(model.parameters())
    device = next((parameter.device for parameter in parameters), torch.device("cpu"))
    if any(parameter.is_meta for parameter in parameters):
        return Probe("meta", None, 0, 0, failure="the model has no weights")
    plan = _plan(model, device.type, batch, seq_len)
    trainable = [] if at_embeddings else [parameter for parameter in parameters if parameter.requires_grad]
    steps = bool(trainable) and collect(model).has_adapters
    with _restored(model, device, written=trainable if steps else []), _entrances(model, active=not trainable) as entrances:
        torch.manual_seed(seed)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        model.train()
        if at_embeddings:
            model.requires_grad_(requires_grad=False)
        try:
            loss = loss_of(called(model, training_batch(model, device, batch, seq_len, plan)))
            loss.backward()
        except Exception as error:  # noqa: BLE001  # an error of the training step is the result of the probe
            return Probe(str(device), None, 0, len(trainable), not trainable, one_line(error))
        watched: list[Tensor] = [*trainable] if trainable else entrances
        arrived = [tensor.grad for tensor in watched if tensor.grad is not None]
        finite = sum(bool(gradient.isfinite().all()) for gradient in arrived)
        value = float(loss.detach())
        failure = None
        if not math.isfinite(value):
            failure = f"the loss is {value}"
        elif not arrived:
            failure = "no gradient arrives"
        elif finite < len(arrived):
            failure = f"{len(arrived) - finite} gradients are not finite"
        elif steps:
            failure = _optimizer_step(model, trainable)
        peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
        stepped = steps and failure is None
        return Probe(str(device), value, finite, len(watched), not trainable, failure, stepped, peak)


def _plan(model: nn.Module, device: str, batch: int, seq_len: int) -> Plan:
    """Return the plan of a batch that runs, as the trace finds it. It is the documented one where none is found."""
    try:
        return plan_for(runnable(model), device if device in ("cpu", "cuda") else "cuda", batch, seq_len) or DOCUMENTED
    except KbitlintError:
        return DOCUMENTED


def _optimizer_step(model: nn.Module, trainable: list[nn.Parameter]) -> str | None:
    """Run one step of AdamW on the trained parameters. Return the problem that it caused, or None."""
    frozen = [(name, parameter) for name, parameter in model.named_parameters() if not parameter.requires_grad]
    before = [_fingerprint(parameter) for _, parameter in frozen]
    reached = [(p, _fingerprint(p)) for p in trainable if p.grad is not None and bool(p.grad.any())]
    torch.optim.AdamW(trainable).step()
    changed = [name for (name, parameter), print_ in zip(frozen, before, strict=True) if _fingerprint(parameter) != print_]
    if changed:
        return f"the optimizer changed the frozen {changed[0]}"
    broken = sum(not bool(parameter.isfinite().all()) for parameter in trainable)
    if broken:
        return f"{broken} trained parameters are not finite after the optimizer's step"
    still = sum(_fingerprint(parameter) == print_ for parameter, print_ in reached)
    return f"{still} trained parameters did not change, although a gradient arrived" if still else None


#: Bytes of one chunk of a fingerprint, so that no second copy of a large parameter is made.
_CHUNK = 1 << 24


def _fingerprint(parameter: Tensor) -> tuple[int, int]:
    """Return two sums over the bytes of a tensor. The second one is weighted by position."""
    held = parameter.detach().contiguous().view(-1).view(torch.uint8)
    plain = weighted = 0
    for start in range(0, held.numel(), _CHUNK):
        part = held[start : start + _CHUNK].long()
        plain += int(part.sum())
        weighted += int((part * (torch.arange(part.numel(), device=part.device) % 65_521)).sum()) * (start // _CHUNK + 1)
    return plain, weighted


@contextmanager
def _restored(model: nn.Module, device: torch.device, written: list[nn.Parameter]) -> Iterator[None]:
    """Restore the model and the random state at the end of the ``with`` statement."""
    values = [(parameter, parameter.detach().clone()) for parameter in written]
    modes = [(module, module.training) for module in model.modules()]
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    state = torch.random.get_rng_state()
    device_state = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    trained = [parameter for parameter, _ in gradients if parameter.requires_grad]
    for parameter, _ in gradients:
        parameter.grad = None
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter in trained:
            parameter.requires_grad = True
        for parameter, gradient in gradients:
            parameter.grad = gradient
        with torch.no_grad():
            for tensor, before in (*buffers, *values):
                tensor.copy_(before)
        torch.random.set_rng_state(state)
        if device_state is not None:
            torch.cuda.set_rng_state(device_state, device)


@contextmanager
def _entrances(model: nn.Module, *, active: bool) -> Iterator[list[Tensor]]:
    """Yield the outputs of the input embeddings as leaves that receive a gradient.

    The layers receive a clone of the leaf. Several models write into their embeddings in place, which a leaf forbids.
    """
    leaves: list[Tensor] = []

    def watch(_: nn.Module, __: Any, output: Any) -> Any:
        if not isinstance(output, Tensor):
            return output
        leaf = output.detach().requires_grad_()
        leaves.append(leaf)
        return leaf.clone()

    embeddings = _input_embeddings(model) if active else []
    handles = [embedding.register_forward_hook(watch) for embedding in embeddings]
    try:
        yield leaves
    finally:
        for handle in handles:
            handle.remove()


def _input_embeddings(model: nn.Module) -> list[nn.Module]:
    """Return the input embeddings of every transformers model in the tree. An encoder-decoder uses those of its halves."""
    found: dict[nn.Module, None] = {}
    for module in model.modules():
        embedding = adapters.input_embedding(module) if isinstance(module, PreTrainedModel) else None
        if isinstance(embedding, nn.ModuleList):
            found.update(dict.fromkeys(embedding))
        elif embedding is not None:
            found[embedding] = None
    return list(found)
