from __future__ import annotations

import peft
import pytest
import tiny
import torch
from script_cases import ADAPTED, LOADED, findings

import kbitlint

CODE = "KB629"
IMPORTS = "from peft import *\nimport peft, torch\nfrom transformers import AutoModelForCausalLM, BitsAndBytesConfig\n"
EIGHT = 'model = AutoModelForCausalLM.from_pretrained("x", quantization_config=BitsAndBytesConfig(load_in_8bit=True))\n'
EITHER = (
    "four = unknown()\n"
    "bnb = BitsAndBytesConfig(load_in_4bit=True) if four else BitsAndBytesConfig(load_in_8bit=True)\n"
    'model = AutoModelForCausalLM.from_pretrained("x", quantization_config=bnb)\n'
)
NEVER = ["DeloraConfig", "FrodConfig", "GloraConfig", "PsoftConfig", "TinyLoraConfig", "OSFConfig", "SupertuningConfig"]
NOT_IN_4_BITS = ["HRAConfig", "LoHaConfig", "LoKrConfig", "PeanutConfig", "DeftConfig"]
TRAIN = ["LoraConfig", "AdaLoraConfig", "IA3Config", "OFTConfig", "BOFTConfig", "VeraConfig", "FourierFTConfig", "MissConfig"]


def attach(config, arguments="target_modules=['q_proj']"):
    return f"model = peft.get_peft_model(model, peft.{config}({arguments}))\n"


def step_of(config, kind):
    """What goes wrong in attaching it to a real quantized model and in the first step; None where it trains."""
    further = {"feedforward_modules": []} if config == "IA3Config" else {"total_step": 9} if config == "AdaLoraConfig" else {}
    further |= {"effective_rank": 8} if config == "OSFConfig" else {"oft_block_size": 4} if config == "OFTConfig" else {}
    further |= {"n_frequency": 9} if config == "FourierFTConfig" else {}
    try:
        model = peft.get_peft_model(tiny.load(kind=kind), getattr(peft, config)(target_modules=["q_proj"], **further))
    except (RuntimeError, TypeError, ValueError) as error:
        return str(error)
    verdict = kbitlint.check(model, select=CODE, trace=False)
    with torch.autocast("cpu", torch.bfloat16):
        step = tiny.step(model)
    assert {v.at.path for v in verdict.violations} == (
        set() if step.error is None else {f"model.layers.{layer}.self_attn.q_proj" for layer in (0, 1)}
    )
    assert step.error is not None or step.trains
    return step.error


@pytest.mark.parametrize(("body", "kind"), [(LOADED, "nf4"), (EIGHT, "int8")])
@pytest.mark.parametrize("config", [*NEVER, *NOT_IN_4_BITS, *TRAIN])
def test_what_is_said_is_what_a_step_does(config, body, kind):
    fails = step_of(config, kind) is not None
    name = config.removesuffix("Config")
    expected = [("error", attach(config).strip(), f"{name} computes with the weights, which are packed")]

    assert findings(CODE, body + attach(config), imports=IMPORTS) == (expected if fails else [])


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("model = AutoModelForCausalLM.from_pretrained('org/base')\n" + attach("LoHaConfig"), id="float base"),
        pytest.param(attach("LoHaConfig"), id="unknown base"),
        pytest.param(LOADED + attach("LoHaConfig", "target_modules=['lm_head']"), id="the head stays unquantized"),
        pytest.param(
            LOADED.replace(")", ", llm_int8_skip_modules=['fc', 'lm_head'])", 1)
            + attach("LoHaConfig", "target_modules=['fc']"),
            id="left out of quantization",
        ),
        pytest.param(EITHER + attach("LoHaConfig"), id="8 bits on some path"),
        pytest.param(LOADED + "model = get_peft_model(model, config)\n", id="unknown config"),
        pytest.param(LOADED + ADAPTED, id="LoRA"),
    ],
)
def test_look_alikes(body):
    assert findings(CODE, body, imports=IMPORTS) == []


def test_some_types_fail_in_8_bits_too_and_so_on_either_path():
    assert len(findings(CODE, EITHER + attach("GloraConfig"), imports=IMPORTS)) == 1


def test_an_adapter_that_is_switched_off_or_on_a_float_layer_breaks_nothing():
    config = peft.LoHaConfig(r=4, target_modules=["q_proj"])
    model = peft.get_peft_model(tiny.load(), config)
    model.base_model.disable_adapter_layers()

    assert kbitlint.check(model, select=CODE, trace=False).violations == ()
    model = peft.get_peft_model(tiny.load(), peft.LoHaConfig(r=4, target_modules=["lm_head"]))
    assert kbitlint.check(model, select=CODE, trace=False).violations == ()
    with torch.autocast("cpu", torch.bfloat16):
        assert tiny.step(model).trains


def test_a_bare_model_is_not_judged():
    report = kbitlint.check(tiny.load(), select=CODE, trace=False)

    assert [skip.reason for skip in report.skips if skip.code == CODE][:1] == ["no adapters are attached yet"]


def test_each_config_of_a_function_that_attaches_is_judged():
    helper = "def run(config):\n    return peft.get_peft_model(load(), config)\n\n\n"
    load = "def load():\n" + "".join(f"    {line}\n" for line in LOADED.strip().split("\n")) + "    return model\n\n\n"
    calls = "run(peft.LoraConfig(target_modules=['q_proj']))\nrun(peft.LoKrConfig(target_modules=['q_proj']))\n"

    assert [line for _, line, _ in findings(CODE, load + helper + calls, imports=IMPORTS)] == [calls.split("\n")[1]]


@pytest.mark.parametrize(
    ("settings", "placed", "flagged"),
    [
        ("load_in_8bit=True", "", 1),
        ("load_in_8bit=True, llm_int8_has_fp16_weight=True", "", 0),
        ("load_in_4bit=True, llm_int8_has_fp16_weight=True", "", 1),
        ("load_in_4bit=True, llm_int8_enable_fp32_cpu_offload=True", ", device_map={'': 'cpu'}", 0),
        ("load_in_4bit=True, llm_int8_enable_fp32_cpu_offload=True", "", 0),
        ("load_in_4bit=True, llm_int8_enable_fp32_cpu_offload=True", ", device_map={'': 0}", 1),
        ("load_in_4bit=True, llm_int8_enable_fp32_cpu_offload=True", ", device_map={'model': 0, 'lm_head': 'cpu'}", 1),
        ("load_in_4bit=True, llm_int8_enable_fp32_cpu_offload=True", ", device_map='auto'", 1),
    ],
)
def test_layers_that_keep_their_floats_are_no_packed_ones(settings, placed, flagged):
    load = f"model = AutoModelForCausalLM.from_pretrained('x', quantization_config=BitsAndBytesConfig({settings}){placed})\n"

    assert len(findings(CODE, load + attach("TinyLoraConfig"), imports=IMPORTS)) == flagged
