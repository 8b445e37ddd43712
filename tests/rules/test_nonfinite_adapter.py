from __future__ import annotations

import pytest
import tiny
import torch
from checkpoint_cases import adapter, checkpoint, findings, lora, skipped
from peft import PeftModel
from safetensors.torch import load_file, save_file

import kbitlint

CODE = "KB634"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_one_value_that_is_not_finite_is_found_and_spreads_to_every_output(tmp_path, dtype, value):
    tiny.with_lora(tiny.load(), target_modules=["v_proj"]).save_pretrained(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(file).items()}
    assert findings(CODE, tmp_path) == []
    first = min(tensors)
    tensors[first][0, 3] = value
    save_file(tensors, file)

    message = "1 of 4 adapter tensors hold NaN or infinity"
    assert findings(CODE, tmp_path) == [("error", f"adapter_model.safetensors {first}", message)]
    with torch.no_grad():
        logits = PeftModel.from_pretrained(tiny.load(), tmp_path)(torch.arange(1, 9)[None]).logits
    assert not logits.isfinite().any()


def test_large_and_small_values_are_finite(tmp_path):
    for byte in (0, 1, 0x7E, 0xFE):
        assert findings(CODE, adapter(tmp_path / str(byte), lora("q_proj", byte))) == []


def test_without_tensors_the_rule_is_skipped(tmp_path):
    assert skipped(CODE, adapter(tmp_path, None)) == ["no safetensors headers here"]


def live(model):
    return [(v.at.path, v.severity.value) for v in kbitlint.check(model, select=CODE).violations]


def test_a_norm_and_an_adapter_with_such_values_are_found_on_a_model():
    model = tiny.with_lora(tiny.load(), target_modules=["v_proj"])
    assert live(model) == []
    model.get_base_model().model.norm.weight.data[3] = float("inf")

    assert live(model) == [("model.norm.weight", "error")]
    assert not tiny.step(model).arrived
    factor = "model.layers.0.self_attn.v_proj.lora_A.default.weight"
    model.get_parameter(f"base_model.model.{factor}").data[0, 0] = float("nan")
    assert [path for path, _ in live(model)] == [factor]


def test_matrices_and_frequencies_with_such_values_are_found_and_a_mask_or_a_rare_token_is_none():
    model = tiny.load()
    model.register_buffer("mask", torch.full((8,), float("-inf")))
    model.model.embed_tokens.weight.data[7] = float("nan")
    assert live(model) == []
    healthy = tiny.step(tiny.with_lora(tiny.prepared()))
    for path, values in ((HEAD, model.lm_head.weight[3:4]), (FREQUENCIES, model.model.rotary_emb.inv_freq[:1])):
        before = values.detach().clone()
        values.data.fill_(float("nan"))
        assert (live(model), tiny.step(model).arrived) == ([(path, "error")], ())
        values.data.copy_(before)

    assert healthy.trains
    assert live(model) == []


HEAD, FREQUENCIES = "lm_head.weight", "model.rotary_emb.inv_freq"


def test_a_vector_in_the_files_of_a_model_is_read(tmp_path):
    folder = checkpoint(tmp_path, {"norm.weight": ("BF16", (4,), 0xFF), "q_proj.weight": ("BF16", (4, 4), 1)})

    assert findings(CODE, folder) == [("error", "model.safetensors norm.weight", "1 vectors of the model hold NaN or infinity")]


def test_weights_without_data_are_not_read():
    assert live(torch.nn.LayerNorm(8, device="meta")) == []
