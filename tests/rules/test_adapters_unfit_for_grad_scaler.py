from __future__ import annotations

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from script_cases import ADAPTED, LOADED, LOOP, PREPARED, findings, fixed_text, flagged_lines

HALF = LOADED + PREPARED + ADAPTED + "model.half()\n"
FP16 = "args = TrainingArguments('out', fp16=True)\nTrainer(model=model, args=args).train()\n"
SFT = "SFTTrainer(model, args=SFTConfig(fp16=True), peft_config=LoraConfig(r=8)).train()\n"


def test_float16_adapters_cannot_be_unscaled():
    assert findings("KB120", HALF + FP16) == [
        (
            "error",
            "args = TrainingArguments('out', fp16=True)",
            "the adapters are float16, and the gradient scaler of float16 training unscales float32 only",
        )
    ]


def test_trl_casts_adapters_of_a_quantized_model_to_bfloat16():
    assert flagged_lines("KB120", LOADED + SFT) == [("warning", SFT.strip())]


COPIED = """
model = AutoModelForCausalLM.from_pretrained("org/base", dtype=torch.float16)
model = get_peft_model(model, LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head"]))
"""
BY_HAND = "for p in model.parameters():\n    if p.requires_grad:\n        p.data = p.data.float()\n"


def test_copies_of_modules_in_float16_stay_float16():
    assert findings("KB120", COPIED + FP16) == [
        (
            "error",
            "args = TrainingArguments('out', fp16=True)",
            "what modules_to_save copies is float16, and the gradient scaler of float16 training unscales float32 only",
        )
    ]

    model = tiny.load(kind="none", dtype=torch.float16)
    adapted = get_peft_model(model, LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head"]))
    found = {p.dtype for name, p in adapted.named_parameters() if p.requires_grad and "modules_to_save" in name}
    assert found == {torch.float16}
    parameter = next(p for name, p in adapted.named_parameters() if p.requires_grad and "modules_to_save" in name)
    parameter.grad = torch.zeros_like(parameter)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(torch.ones(()))
    with pytest.raises(ValueError, match="Attempting to unscale FP16 gradients"):
        scaler.unscale_(torch.optim.AdamW([parameter]))


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(COPIED + BY_HAND + FP16, id="cast by hand"),
        pytest.param(COPIED + "model.float()\n" + FP16, id="cast whole"),
        pytest.param(COPIED.replace(', modules_to_save=["lm_head"]', "") + FP16, id="no copies"),
        pytest.param(COPIED.replace("dtype=torch.float16", "dtype=torch.bfloat16") + FP16, id="copies in bfloat16"),
        pytest.param(LOADED + PREPARED + ADAPTED + FP16, id="float32 adapters"),
        pytest.param(LOADED + SFT.replace("fp16", "bf16"), id="bfloat16 needs no scaler"),
        pytest.param(HALF + FP16.replace("fp16=True", "fp16=flag"), id="unknown precision"),
        pytest.param(SFT.replace("SFTTrainer(model", "SFTTrainer(other"), id="unknown model"),
    ],
)
def test_look_alikes(script):
    assert findings("KB120", script) == []


def test_the_fix_trains_in_bfloat16(tmp_path):
    assert fixed_text("KB120", HALF + FP16, tmp_path) == HALF + FP16.replace("fp16", "bf16")


def test_a_loop_of_ones_own_is_shown_what_to_do():
    loop = "scaler = torch.amp.GradScaler('cuda')\n" + LOOP

    assert flagged_lines("KB120", HALF + loop) == [("error", "loss.backward()")]


def test_adapters_that_transformers_or_diffusers_attaches_have_the_models_dtype():
    scaled = "from accelerate import Accelerator\naccelerator = Accelerator(mixed_precision='fp16')\n"
    loop = LOOP.replace("loss.backward()", "accelerator.backward(loss)")
    unet = """
from diffusers import UNet2DConditionModel
from diffusers.training_utils import cast_training_params
model = UNet2DConditionModel.from_pretrained("org/base", subfolder="unet", torch_dtype=torch.float16)
model.add_adapter(LoraConfig(target_modules=["to_q"]))
"""
    cast = "cast_training_params({}, dtype=torch.float32)\n"
    assert flagged_lines("KB120", scaled + unet + loop) == [("error", "accelerator.backward(loss)")]
    assert flagged_lines("KB120", scaled + unet + cast.format("model") + loop) == []
    assert flagged_lines("KB120", scaled + unet + cast.format("[model]") + loop) == []
    model = tiny.load("llama", kind="none", dtype=torch.float16)
    model.add_adapter(LoraConfig(target_modules=["q_proj"]))
    assert {p.dtype for name, p in model.named_parameters() if "lora_" in name} == {torch.float16}


CALLBACK = """
from transformers import TrainerCallback
class Recast(TrainerCallback):
    def on_step_begin(self, args, state, control, model=None, **kwargs):
        for one in model.parameters():
            if one.requires_grad:
                one.data = one.data.to(torch.{})
"""


def test_a_callback_that_casts_the_adapters_back_leaves_no_bfloat16():
    trained = SFT.replace("peft_config", "callbacks=[Recast()], peft_config")

    assert findings("KB120", CALLBACK.format("float32") + LOADED + trained) == []
    assert len(findings("KB120", CALLBACK.format("bfloat16") + LOADED + trained)) == 1
