"""Rule KB315: zeroed-gradient."""

from __future__ import annotations

import pytest
import tiny
import torch
from peft import (
    LoHaConfig,
    LoraConfig,
    RandLoraConfig,
    ShiraConfig,
    UniLoraConfig,
    VeraConfig,
    get_peft_model,
    prepare_model_for_kbit_training,
)
from torch import nn

import kbitlint

CODE = "KB315"


def told(model):
    return [(v.at.path, v.severity.value, v.evidence["parameters"]) for v in kbitlint.check(model, select=CODE).violations]


def unmoved(model):
    """The trainable parameters that some real steps of SGD do not change by a bit."""
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    before = {name: parameter.detach().clone() for name, parameter in trained.items()}
    optimizer = torch.optim.SGD(trained.values(), lr=1.0)
    for seed in range(3):
        assert tiny.step(model, seed=seed).error is None
        optimizer.step()
    return [name for name, parameter in trained.items() if torch.equal(parameter, before[name])]


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_scales_that_a_cast_to_the_dtype_of_bytes_rounds_to_zero_are_an_error(kind):
    """PEFT keeps the scales of UniLoRA, which are below 1, in the dtype of the layer's weight."""
    config = UniLoraConfig(target_modules=["q_proj", "v_proj"], r=4)
    model = get_peft_model(tiny.load(kind=kind), config)

    ((path, severity, parameters),) = told(model)
    assert (".unilora_scales_" in path, severity, parameters) == (True, "error", 1)
    assert len(unmoved(model)) == 1

    plain = get_peft_model(tiny.load(kind="none"), config)
    assert (told(plain), unmoved(plain)) == ([], [])


class Gated(nn.Module):
    """A layer behind a gate, as cross-attention has it. ``before`` gets the gate in each step."""

    def __init__(self, layer, gate, before=None):
        super().__init__()
        self.layer, self.before = layer, before
        if isinstance(gate, nn.Parameter):
            self.gate = gate
        else:
            self.register_buffer("gate", gate)

    def forward(self, hidden, *args, **kwargs):
        if self.before is not None:
            self.before(self.gate)
        return self.gate.tanh() * self.layer(hidden, *args, **kwargs)


def gated(gate, before=None):
    model = tiny.load()
    model.model.layers[1].mlp = Gated(model.model.layers[1].mlp, gate, before)
    return get_peft_model(model, LoraConfig(r=4, target_modules=["down_proj"]))


def test_a_frozen_gate_of_zeros_keeps_what_lies_behind_it_as_it_is():
    model = gated(nn.Parameter(torch.zeros(1, dtype=torch.bfloat16)))

    assert told(model) == [("model.layers.1.mlp.gate", "warning", 2)]
    assert [name.split(".lora")[0].rpartition("layers.")[2] for name in unmoved(model)] == ["1.mlp.layer.down_proj"] * 2


@pytest.mark.parametrize("state", ["opened", "trained", "written in each step"])
def test_a_gate_that_is_open_or_opens_is_no_fault(state):
    gate = torch.zeros(1, dtype=torch.bfloat16)
    if state == "written in each step":
        model = gated(gate, lambda own: own.add_(0.5))
    else:
        model = gated(nn.Parameter(gate + (state == "opened")))
        model.get_submodule("base_model.model.model.layers.1.mlp").gate.requires_grad_(state == "trained")

    assert told(model) == []
    assert unmoved(model) == []


@pytest.mark.parametrize(("packed", "severity", "still"), [("o_proj", "warning", 4), ("", "error", 8)])
def test_packed_weights_that_unpack_to_zeros_stop_the_gradients_before_them(packed, severity, still):
    model = prepare_model_for_kbit_training(tiny.load(), gradient_checkpointing_kwargs={"use_reentrant": False})
    for name, module in model.named_modules():
        if hasattr(module, "quant_state") and name.endswith(packed):
            module.weight.quant_state.absmax.zero_()
    model = get_peft_model(model, LoraConfig(r=4, target_modules=["v_proj", "down_proj"], init_lora_weights=False))
    violations = kbitlint.check(model, select=CODE).violations

    assert {v.severity.value for v in violations} == {severity}
    assert sum(v.evidence["parameters"] for v in violations) == len(unmoved(model)) == still


def test_factors_of_zeros_are_the_normal_start_and_two_of_them_another_rule():
    assert told(get_peft_model(tiny.load(), LoraConfig(r=4, target_modules=["q_proj", "embed_tokens"]))) == []
    assert told(get_peft_model(tiny.load(), VeraConfig(r=4, target_modules=["o_proj"]))) == []
    dead = get_peft_model(tiny.load(), LoraConfig(r=4, target_modules=["q_proj"]))
    for name, parameter in dead.named_parameters():
        if "lora_" in name:
            parameter.data.zero_()

    assert told(dead) == []


def test_a_frozen_factor_of_zeros_is_left_to_the_rule_on_dead_adapters():
    model = get_peft_model(tiny.load(), LoraConfig(r=4, target_modules=["q_proj"]))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.requires_grad_(requires_grad=False)

    dead = kbitlint.check(model, select="KB636").violations
    assert ([v.severity.value for v in dead], told(model)) == (["error"] * 2, [])
    assert len(unmoved(model)) == 2


class Rounding(nn.Module):
    """A layer whose input is rounded, with the gradient passed around the rounding or not."""

    def __init__(self, layer, operator, *, around):
        super().__init__()
        self.layer, self.operator, self.around = layer, operator, around

    def forward(self, hidden):
        rounded = self.operator(hidden * 8) / 8
        return self.layer(hidden + (rounded - hidden).detach() if self.around else rounded)


def rounding(operator, *, around, targets=("gate_proj", "up_proj")):
    model = tiny.load()
    for layer in model.model.layers:
        layer.mlp.down_proj = Rounding(layer.mlp.down_proj, operator, around=around)
    return get_peft_model(model, LoraConfig(r=4, target_modules=list(targets), init_lora_weights=False))


@pytest.mark.parametrize("operator", [torch.round, torch.floor, torch.sign, torch.trunc])
def test_a_rounding_without_a_way_around_stops_every_gradient(operator):
    """The lower layer's gradient could pass the residual stream, and its own rounding stops it all the same."""
    model = rounding(operator, around=False)
    places = [f"model.layers.{index}.mlp.down_proj" for index in (0, 1)]
    assert sorted(told(model)) in ([(place, "error", 4) for place in places], [(places[0], "error", 8)])
    assert len(unmoved(model)) == 8
    assert (told(through := rounding(operator, around=True)), unmoved(through)) == ([], [])


class OwnLora(nn.Module):
    """LoRA by hand. The scale is an integer division, or a quotient."""

    def __init__(self, base, scale):
        super().__init__()
        self.base, self.scale = base, scale
        self.lora_A, self.lora_B = (nn.Linear(*sizes, bias=False).bfloat16() for sizes in ((64, 16), (16, 64)))

    def forward(self, hidden):
        return self.base(hidden) + self.lora_B(self.lora_A(hidden)) * self.scale


def by_hand(scale):
    model = tiny.load().requires_grad_(requires_grad=False)
    for layer in model.model.layers:
        layer.self_attn.q_proj = OwnLora(layer.self_attn.q_proj, scale)
    return model


def test_a_scale_of_zero_in_code_of_ones_own_is_an_error_and_a_term_beside_others_is_none():
    model = by_hand(8 // 16)
    assert sorted({severity for _, severity, _ in told(model)}) == ["error"]
    assert sum(parameters for _, _, parameters in told(model)) == len(unmoved(model)) == 4
    assert (told(scaled := by_hand(8 / 16)), unmoved(scaled)) == ([], [])
    beside = by_hand(8 / 16)
    beside.model.layers[1].self_attn.q_proj.scale = 0.0
    assert told(beside) == []
    assert len(unmoved(beside)) == 2


def two_factors(filled):
    """RandLoRA with some of its two scales set to zero, of which each product has one."""
    base = prepare_model_for_kbit_training(tiny.load(), use_gradient_checkpointing=False)
    model = get_peft_model(base, RandLoraConfig(target_modules=["q_proj", "v_proj"], r=4))
    for name, parameter in model.named_parameters():
        if any(f"randlora_{kind}" in name for kind in filled) and parameter.requires_grad:
            nn.init.zeros_(parameter)
    return model


def test_factors_of_zeros_hold_each_other_and_one_alone_moves():
    model = two_factors(["lambda", "gamma"])

    found = told(model)
    assert {severity for _, severity, _ in found} == {"error"}
    assert len(found) == len({path for path, _, _ in found}) > 0
    assert len(unmoved(model)) == len([p for p in model.parameters() if p.requires_grad])

    alone = two_factors(["lambda"])  # as PEFT starts it
    assert (told(alone), unmoved(alone)) == ([], [])


def test_a_product_of_three_factors_that_starts_with_two_zeros_never_moves_and_the_rest_does():
    model = get_peft_model(tiny.load(kind="none"), LoHaConfig(target_modules=["q_proj", "v_proj"], r=4))
    for name, parameter in model.named_parameters():
        if "layers.0" in name and "hada_w1" in name:
            nn.init.zeros_(parameter)

    # hada_w1_a @ hada_w1_b is zero, and multiplies hada_w2_a @ hada_w2_b, of which the first is zero as well
    found = told(model)
    still = {name.removeprefix("base_model.model.") for name in unmoved(model)}
    assert {path for path, _, _ in found} <= still
    assert {severity for _, severity, _ in found} == {"warning"}
    assert sum(parameters for *_, parameters in found) == len(still) == 8


MASK = torch.zeros(1)
OPEN = torch.ones(1)


def counted(seen):
    return lambda gradient: seen.append(gradient) or gradient * 0


HOOKS = {
    "times zero": (lambda one: one.register_hook(lambda gradient: gradient * 0), True),
    "zeros": (lambda one: one.register_hook(torch.zeros_like), True),
    "a mask of zeros": (lambda one: one.register_hook(lambda gradient: gradient * MASK), True),
    "dropped after it arrived": (lambda one: one.register_post_accumulate_grad_hook(dropped), True),
    "cleared after it arrived": (lambda one: one.register_post_accumulate_grad_hook(cleared), True),
    "a mask that passes": (lambda one: one.register_hook(lambda gradient: gradient * OPEN), False),
    "clamped": (lambda one: one.register_hook(lambda gradient: gradient.clamp(-1, 1)), False),
    "looked at": (lambda one: one.register_hook(lambda _: None), False),
}


def cleared(held):
    held.grad.zero_()


def dropped(held):
    held.grad = None


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_that_leaves_no_gradient_is_found_as_it_acts(name):
    hook, acts = HOOKS[name]
    model = tiny.with_lora(tiny.load())
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        hook(parameter)

    assert {severity for _, severity, _ in told(model)} == ({"error"} if acts else set())
    assert len(unmoved(model)) == (len(trained) if acts else 0)


def test_one_hooked_parameter_is_a_warning_and_a_hook_that_writes_elsewhere_is_not_called():
    model, seen = tiny.with_lora(tiny.load()), []
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    trained[0].register_hook(lambda gradient: gradient * 0)
    trained[1].register_hook(counted(seen))

    assert [(severity, parameters) for _, severity, parameters in told(model)] == [("warning", 1)]
    assert seen == []


@pytest.mark.parametrize(
    "adapted", [ShiraConfig(r=4, target_modules=["q_proj", "v_proj"]), LoraConfig(r=4)], ids=["sparse", "lora"]
)
def test_what_starts_at_zero_and_moves_is_no_fault(adapted):
    model = get_peft_model(tiny.load(), adapted)

    assert (told(model), unmoved(model)) == ([], [])
