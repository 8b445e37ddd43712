from __future__ import annotations

import pytest
import tiny
import torch
from peft import IA3Config, LoraConfig, PromptTuningConfig, get_peft_model
from script_cases import LOADED, LOOP, findings

import kbitlint
from kbitlint.context import Strategy, TrainingContext
from kbitlint.model.batch import loss_of, training_batch

CODE = "KB105"
LORA = {f"model.layers.{i}.self_attn.q_proj.lora_{factor}.default.weight" for i in (0, 1) for factor in "AB"}


def half(dtype=torch.float16, **overrides):
    model = get_peft_model(tiny.load(dtype=dtype), LoraConfig(**{"r": 4, "target_modules": ["q_proj"], **overrides}))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)
    return model


def found(model, **context):
    violations = kbitlint.check(model, select=CODE, context=TrainingContext(**context)).violations
    return {v.at.path: (v.message, v.severity.value, v.consequence.value) for v in violations}


def one_optimizer_step(model, *, scaler=False, lr=2e-4):
    """Whether every trainable parameter is finite after a real step."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=lr)
    loss = loss_of(model.train()(**training_batch(model, "cpu")))
    if scaler:
        scaler = torch.amp.GradScaler("cpu")
        scaler.scale(loss).backward()
        scaler.step(optimizer)
    else:
        loss.backward()
        optimizer.step()
    return all(bool(parameter.isfinite().all()) for parameter in trainable)


def test_float16_adapters_are_flagged_and_adamw_turns_them_nan():
    model = half()

    assert set(found(model)) == LORA
    assert set(found(model).values()) == {
        ("adapter is float16: AdamW's epsilon is zero in it", "warning", "training may become unstable")
    }
    assert not one_optimizer_step(model)


def test_a_grad_scaler_refuses_float16_adapters():
    model = half()

    assert set(found(model, grad_scaler=True).values()) == {
        ("adapter is float16, which the GradScaler refuses", "error", "training fails")
    }
    with pytest.raises(ValueError, match="Attempting to unscale FP16 gradients"):
        one_optimizer_step(model, scaler=True)


def test_the_fix_lets_float16_adapters_train():
    model = half()

    report = kbitlint.fix(model, select=CODE)

    assert report.violations == ()
    assert tiny.step(model).trains
    assert one_optimizer_step(model)
    assert one_optimizer_step(model, scaler=True)


def test_bfloat16_adapters_train_and_lose_small_updates():
    model = half(torch.bfloat16, init_lora_weights=False)
    before = model.base_model.model.model.layers[0].self_attn.q_proj.lora_B["default"].weight.detach().clone()

    assert {(severity, text) for text, severity, _ in found(model).values()} == {
        ("info", "adapter is bfloat16: small updates are rounded away")
    }
    assert one_optimizer_step(model, scaler=True, lr=1e-5)
    after = model.base_model.model.model.layers[0].self_attn.q_proj.lora_B["default"].weight
    assert float((after == before).float().mean()) > 0.9


def test_float32_adapters_are_not_flagged():
    model = get_peft_model(tiny.load(), LoraConfig(r=4, target_modules=["q_proj"]))

    assert found(model, grad_scaler=True) == {}
    assert one_optimizer_step(model, scaler=True)


def test_sharded_units_want_one_dtype():
    assert found(half(torch.bfloat16), strategy=Strategy.FSDP1) == {}
    assert len(found(half(), strategy=Strategy.FSDP1)) == 4


def test_what_meets_half_precision_without_a_cast_is_left_alone():
    copy = half(modules_to_save=["lm_head"])
    scale = get_peft_model(tiny.load(dtype=torch.float16), IA3Config(target_modules=["k_proj"], feedforward_modules=[])).half()
    prompt = get_peft_model(tiny.load(), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)).half()

    safeties = [
        {v.fix.safety.value for v in kbitlint.check(model, select=CODE).violations if "q_proj" not in v.at.path}
        for model in (copy, scale, prompt)
    ]

    assert safeties == [{"display"}, {"display"}, {"display"}]


def test_without_adapters_the_rule_is_skipped():
    assert kbitlint.check(tiny.load(), select=CODE).skips[0].reason == "no adapters are attached yet"


FLOAT16 = LOADED.replace(", quantization_config=bnb", "").replace("dtype=torch.bfloat16)\n", "dtype=torch.float16)\n")
NARROW = FLOAT16 + "model = get_peft_model(model, LoraConfig(r=8), autocast_adapter_dtype=False)\n"
TOLD = "the adapters are float16: AdamW's eps is zero in it, so the first step makes them NaN"


@pytest.mark.parametrize(
    "attach", ["model.add_adapter(LoraConfig(r=8))\n", "model = get_peft_model(model, LoraConfig(r=8))\nmodel.half()\n"]
)
def test_a_loop_that_steps_float16_adapters(attach):
    line = "optimizer = torch.optim.AdamW(model.parameters())"
    assert findings(CODE, NARROW + LOOP) == [("error", line, TOLD)]
    assert findings(CODE, FLOAT16 + attach + LOOP) == [("error", line, TOLD)]


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(NARROW.replace("float16", "bfloat16") + LOOP, id="bfloat16"),
        pytest.param(NARROW.replace(", autocast_adapter_dtype=False", "") + LOOP, id="cast by PEFT"),
        pytest.param(NARROW + LOOP.replace("parameters())", "parameters(), eps=1e-4)"), id="an eps that float16 has"),
        pytest.param(NARROW + LOOP.replace("AdamW", "SGD"), id="no eps"),
        pytest.param("scaler = torch.amp.GradScaler('cuda')\n" + NARROW + LOOP, id="KB120's"),
    ],
)
def test_loops_that_are_not_reported(script):
    assert findings(CODE, script) == []


def test_the_first_step_makes_float16_adapters_nan():
    model = tiny.load("llama", kind="none", dtype=torch.float16)
    model.add_adapter(LoraConfig(target_modules=["q_proj"]))
    adapters = [p for p in model.parameters() if p.requires_grad]
    for adapter in adapters:
        adapter.grad = torch.zeros_like(adapter)
    torch.optim.AdamW(adapters, lr=1e-4, foreach=False).step()
    assert all(p.isnan().any() for p in adapters)
