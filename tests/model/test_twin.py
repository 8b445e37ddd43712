"""A twin carries everything of a model but its weights, and nothing that is done to it reaches the model."""

from __future__ import annotations

import functools
import types
import weakref

import pytest
import tiny
import torch

import kbitlint
from kbitlint.model.trace.twin import TwinError, twin_of


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


# ------------------------------------------------------------------------- what leads to the model leads to its copy
# ruff: noqa: PLW0108  # closures are what is tested


class Held:
    """An object that is no module and holds one."""

    def __init__(self, model):
        self.model, self.seen = model, []

    def call(self, *args):
        self.seen.append(args)
        return self.model.inner(*args)


class Called(Held):
    def __call__(self, *args):
        return self.call(*args)

    def __getstate__(self):
        raise TypeError("as accelerate's wrappers of a forward do")


class Slotted:
    __slots__ = ("model",)

    def __init__(self, model):
        self.model = model


def closure(model):
    return lambda *args: model.inner(*args)


def bound_method_of_a_closure(model):
    """As TRL binds its fused forward."""
    before = model.inner.forward

    def forward(self, *args):
        return before(*args)

    return types.MethodType(forward, model)


def nested_closures(model):
    inner = closure(model)
    return lambda *args: inner(*args)


def default(model):
    return lambda *args, _model=model: _model.inner(*args)


def keyword_default(model):
    def forward(*args, _model=model):
        return _model.inner(*args)

    forward.__defaults__, forward.__kwdefaults__ = None, {"_model": model}
    return forward


def partial(model):
    return functools.partial(lambda inner, *args: inner(*args), model.inner)


def partial_keyword(model):
    return functools.partial(lambda *args, inner: inner(*args), inner=model.inner)


def wrapped(model):
    forward = functools.wraps(model.inner.forward)(lambda *args: forward.__wrapped__(*args))
    return forward


def cached(model):
    return functools.lru_cache(maxsize=None)(lambda *args: model.inner(*args))


def weakly(model):
    reference = weakref.ref(model)
    return lambda *args: reference().inner(*args)


def object_in_a_closure(model):
    held = Held(model)
    return lambda *args: held.call(*args)


def slots_in_a_closure(model):
    held = Slotted(model)
    return lambda *args: held.model.inner(*args)


def method_of_an_object(model):
    return Held(model).call


def callable_object(model):
    return Called(model)


def containers(model):
    held = {"first": [(model.inner,)]}
    return lambda *args: held["first"][0][0](*args)


def parameter(model):
    weight = model.inner.weight
    return lambda incoming: torch.nn.functional.linear(incoming, weight)


def method_of_a_parameter(model):
    transposed = model.inner.weight.t
    return lambda incoming: incoming @ transposed()


KINDS = [
    closure,
    bound_method_of_a_closure,
    nested_closures,
    default,
    keyword_default,
    partial,
    partial_keyword,
    wrapped,
    cached,
    weakly,
    object_in_a_closure,
    slots_in_a_closure,
    method_of_an_object,
    callable_object,
    containers,
    parameter,
    method_of_a_parameter,
]


def through_a_forward(model, make):
    model.forward = make(model)


def through_a_hook(model, make):
    bound = make(model)
    model.forward = lambda incoming: incoming
    model.register_forward_hook(lambda _, args, __: bound(*args))


def through_an_attribute(model, make):
    model.forward = types.MethodType(lambda self, incoming: self.bound[0](incoming), model)
    model.bound = [make(model)]


@pytest.mark.parametrize("place", [through_a_forward, through_a_hook, through_an_attribute])
@pytest.mark.parametrize("make", KINDS)
def test_what_leads_to_the_model_leads_to_the_twin(make, place):
    model = torch.nn.Module()
    model.inner = torch.nn.Linear(2, 2, bias=False)
    place(model, make)
    ran, own = [], {id(module) for module in model.modules()}
    functions = [cell.cell_contents for cell in getattr(model.forward, "__closure__", None) or ()]

    twin = twin_of(model)
    with torch.nn.modules.module.register_module_forward_pre_hook(
        lambda module, _: ran.append(module) if id(module) in own else None
    ):
        out = twin(torch.empty(1, 2, device="meta", requires_grad=True))
    out.sum().backward()

    assert ran == []
    assert twin.inner.weight.grad is not None
    assert model.inner.weight.grad is None
    assert [cell.cell_contents for cell in getattr(model.forward, "__closure__", None) or ()] == functions
    assert model(torch.ones(1, 2)).tolist() == [model.inner.weight.sum(1).tolist()]


def test_functions_that_share_a_cell_share_its_copy():
    model = torch.nn.Linear(2, 2)
    count = 0

    def counts(*_):
        nonlocal count
        count += 1

    model.register_forward_pre_hook(counts)
    model.told = lambda: count
    twin = twin_of(model)
    twin(torch.empty(1, 2, device="meta"))

    assert (twin.told(), model.told()) == (1, 0)


def test_a_function_that_a_module_holds_under_its_name_is_recognised_in_the_twin():
    model = torch.nn.Linear(2, 2)
    model.checkpoint = torch.utils.checkpoint.checkpoint

    assert twin_of(model).checkpoint is torch.utils.checkpoint.checkpoint


def test_functions_that_lead_to_a_whole_program_are_one_line(monkeypatch):
    monkeypatch.setattr("kbitlint.model.trace.search.MAX_SCANNED", 100)
    model, data = torch.nn.Linear(2, 2), [[number] for number in range(200)]
    model.register_forward_hook(lambda *_: data and None)

    with pytest.raises(TwinError, match=r"^the model cannot be copied without its weights: .*lead to more than 100 objects$"):
        twin_of(model)


# ---------------------------------------------------------------------------- a step that reaches the model is refused


REACHED = {}


class Reaches(torch.nn.Linear):
    """A class that finds the model under a global name, as a patched library class does."""

    def forward(self, incoming):
        return REACHED["by"](incoming)


def reaching(by):
    model = tiny.with_lora(tiny.load())
    layer = model.get_base_model().model.layers[0]
    layer.mlp = torch.nn.Sequential(Reaches(1, 1, bias=False))
    REACHED["by"] = functools.partial(by, model)
    return model


def calls(model, incoming):
    return model.get_base_model().model.layers[1].mlp(incoming)


def calls_and_hides_it(model, incoming):
    try:
        return calls(model, incoming)
    except RuntimeError:
        return incoming


def computes(model, incoming):
    return incoming * model.get_base_model().model.norm.weight


def computes_with_a_view(model, incoming):
    return incoming * model.get_base_model().model.norm.weight.detach()[:1]


@pytest.mark.parametrize(
    ("by", "what"),
    [
        (calls, "it calls model.layers.1.mlp of the model itself, not of its copy"),
        (calls_and_hides_it, "it calls model.layers.1.mlp of the model itself, not of its copy"),
        (computes, "it computes with a tensor of the model itself, not of its copy"),
        (computes_with_a_view, "it computes with a tensor of the model itself, not of its copy"),
    ],
)
def test_a_step_that_reaches_the_model_is_a_skip_with_the_reason_and_leaves_it_untouched(by, what):
    model = reaching(by)
    before = [(p._version, p.grad) for p in model.parameters()]

    report = kbitlint.check(model)

    (reason,) = [skip.reason for skip in report.skips if skip.surface.value == "trace" and not skip.code]
    assert reason == (
        f"no training step without weights: {what}: a function finds it past the attributes that a copy can follow"
    )
    assert not {"KB203", "KB303"} & {violation.code for violation in report.violations}
    assert [(p._version, p.grad) for p in model.parameters()] == before
    assert kbitlint.memory(model).states[0].failure == reason


def test_a_step_that_calls_no_module_with_a_parameter_is_a_skip():
    class Idle(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = torch.nn.Linear(2, 2)

        def forward(self, input_ids, labels=None):  # noqa: ARG002  # what a batch is made for
            return (torch.zeros(1, requires_grad=True).sum(),)

    report = kbitlint.check(Idle())

    reasons = [skip.reason for skip in report.skips if skip.surface.value == "trace" and not skip.code]
    assert reasons == ["no training step without weights: it calls no module of the model that holds a parameter"]
    assert "KB203" not in {violation.code for violation in report.violations}
