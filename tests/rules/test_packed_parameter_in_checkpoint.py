from __future__ import annotations

import pytest
import tiny
import transformers
from checkpoint_cases import BNB, checkpoint, findings, floats, packed, skipped

import kbitlint

CODE = "KB825"
MESSAGE = "a parameter is stored packed, which from_pretrained loads for Linear layers only"
EXPERTS = [f"model.layers.{i}.mlp.experts.{name}" for i in (0, 1) for name in ("down_proj", "gate_up_proj")]


@pytest.mark.skipif(not tiny.TRANSFORMERS_5, reason=tiny.LISTED)
def test_a_model_that_is_saved_with_packed_experts_cannot_be_loaded(tmp_path):
    model = tiny.load("mixtral (MoE)")
    kbitlint.fix(model, unsafe=True)
    with pytest.raises(ValueError, match="Undefined Operation"):
        model.save_pretrained(tmp_path / "refused")
    model.save_pretrained(tmp_path / "saved", save_original_format=False)

    assert findings(CODE, tmp_path / "saved") == [("error", f"model.safetensors {path}", MESSAGE) for path in EXPERTS]
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "saved", device_map={"": "cpu"})


def test_after_undo_it_is_saved_as_it_was_loaded(tmp_path):
    model = tiny.load("mixtral (MoE)")
    kbitlint.fix(model, unsafe=True)
    kbitlint.undo(model)
    model.save_pretrained(tmp_path)

    assert findings(CODE, tmp_path) == []
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, device_map={"": "cpu"})
    assert tiny.step(tiny.with_lora(loaded)).trains


ORPHAN = {"layers.0.experts.down_proj.quant_state.bitsandbytes__nf4": ("U8", (8,))}


@pytest.mark.parametrize("tensors", [packed("layers.0.q_proj"), packed("layers.0.q_proj", 8), floats("a"), ORPHAN])
def test_look_alikes(tmp_path, tensors):
    assert findings(CODE, checkpoint(tmp_path, tensors, BNB)) == []


def test_without_headers_it_is_skipped(tmp_path):
    assert skipped(CODE, checkpoint(tmp_path, None)) == ["no safetensors headers here"]
