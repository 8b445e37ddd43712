from __future__ import annotations

from checkpoint_cases import adapter, findings, lora, skipped


def test_a_tensor_that_was_not_gathered(tmp_path):
    tensors = lora("q_proj") | {"base_model.model.v_proj.lora_B.weight": ("F32", (0, 2))}

    assert findings("KB624", adapter(tmp_path, tensors)) == [
        ("error", "adapter_model.safetensors base_model.model.v_proj.lora_B.weight", "an adapter tensor without elements")
    ]


def test_look_alikes(tmp_path):
    assert findings("KB624", adapter(tmp_path, lora("q_proj"))) == []
    assert skipped("KB624", adapter(tmp_path / "bare", None)) == ["no adapter_model.safetensors here"]


def test_a_file_without_a_tensor_holds_no_adapter(tmp_path):
    assert findings("KB624", adapter(tmp_path, {})) == [
        ("error", "adapter_model.safetensors", "the adapter's file holds no tensor")
    ]
