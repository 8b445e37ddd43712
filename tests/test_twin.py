"""A twin carries everything of a model but its weights, and nothing that is done to it reaches the model."""

from __future__ import annotations

import functools

import pytest
import tiny
import torch

from kbitlint.model.twin import TwinError, twin_of


def test_a_twin_has_every_tensor_without_its_contents():
    model = tiny.with_lora(tiny.load())
    twin = twin_of(model)

    told = [(name, p.shape, p.dtype, p.requires_grad, type(p)) for name, p in model.named_parameters()]
    assert [(name, p.shape, p.dtype, p.requires_grad, type(p)) for name, p in twin.named_parameters()] == told
    assert all(parameter.is_meta for parameter in twin.parameters())
    assert not {id(module) for module in model.modules()} & {id(module) for module in twin.modules()}


def test_tied_weights_stay_tied():
    twin = twin_of(tiny.load("t5 (encoder-decoder)"))

    assert twin.shared.weight is twin.encoder.embed_tokens.weight is twin.decoder.embed_tokens.weight


def test_small_integers_keep_their_values_and_large_ones_do_not():
    model = torch.nn.Module()
    model.register_buffer("positions", torch.arange(5))
    model.register_buffer("packed", torch.zeros(2**21, dtype=torch.uint8))
    model.register_buffer("table", torch.ones(3))
    twin = twin_of(model)

    assert twin.positions.tolist() == [0, 1, 2, 3, 4]
    assert (twin.packed.is_meta, twin.table.is_meta) == (True, True)


def test_tensors_that_stand_as_plain_attributes_are_not_copied():
    model = torch.nn.Linear(2, 2)
    model.cache = {"scale": torch.ones(4)}
    twin = twin_of(model)

    assert (twin.cache["scale"].is_meta, twin.cache["scale"].shape) == (True, (4,))
    assert model.cache["scale"].tolist() == [1, 1, 1, 1]


def test_hooks_that_belong_to_the_model_belong_to_the_twin():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    seen = []

    def closure(module, args, output):
        seen.append(model[0].weight.is_meta)
        return output

    class Bound(torch.nn.Module):
        def hook(self, _module, _args, output):
            self.last = output
            return output

    model.add_module("bound", Bound())
    model[0].register_forward_hook(closure)
    model[1].register_forward_hook(model.bound.hook)
    model[1].register_forward_hook(functools.partial(lambda owner, *_: setattr(owner, "touched", True), model))
    twin = twin_of(model)
    twin[1](twin[0](torch.empty(1, 2, device="meta")))

    assert seen == []
    assert twin.bound.last.is_meta
    assert twin.touched
    assert not hasattr(model.bound, "last")
    assert not hasattr(model, "touched")


def test_flags_modes_and_checkpoint_functions_come_along():
    model = tiny.load()
    tiny.bind_reentrant(model, use_reentrant=True)
    model.eval()
    twin = twin_of(model)

    assert [module.training for module in twin.modules()] == [module.training for module in model.modules()]
    bound = [layer._gradient_checkpointing_func.keywords for layer in twin.model.layers]
    assert bound == [{"use_reentrant": True}] * 2
    assert twin.config.to_dict() == model.config.to_dict()


def test_what_accelerate_put_around_forwards_is_dropped():
    from accelerate.hooks import AlignDevicesHook, add_hook_to_module

    model = tiny.load()
    for layer in model.model.layers:
        add_hook_to_module(layer, AlignDevicesHook(execution_device="cpu", io_same_device=True))
    twin = twin_of(model)

    assert [("forward" in layer.__dict__, hasattr(layer, "_hf_hook")) for layer in twin.model.layers] == [(False, False)] * 2
    assert all("forward" in layer.__dict__ for layer in model.model.layers)


def test_a_wrapped_forward_runs_the_twin_and_not_the_model():
    """Trainer wraps forward in autocast and a conversion of the output, with the model's own forward in a closure."""
    from accelerate.utils import convert_outputs_to_fp32

    model = torch.nn.Linear(2, 2)
    model._original_forward = model.forward
    model.forward = torch.autocast("cpu", dtype=torch.bfloat16)(model.forward)
    model.forward = convert_outputs_to_fp32(model.forward)
    twin = twin_of(model)

    assert twin(torch.empty(1, 2, device="meta")).is_meta


def test_what_cannot_be_copied_is_one_line():
    import threading

    model = torch.nn.Linear(2, 2)
    model.lock = threading.Lock()
    with pytest.raises(TwinError) as raised:
        twin_of(model)

    message = "the model cannot be copied without its weights: TypeError: cannot pickle '_thread.lock' object"
    assert str(raised.value) == message
