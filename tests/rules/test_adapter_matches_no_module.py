from __future__ import annotations

from checkpoint_cases import adapter, checkpoint, findings, floats, lora, skipped


def test_an_adapter_for_another_model(tmp_path):
    base = checkpoint(tmp_path / "base", floats("model.layers.0.self_attn.q_proj"))
    folder = adapter(tmp_path / "adapter", lora("model.layers.0.attention.q_proj"), base)

    assert findings("KB623", folder) == [
        (
            "error",
            "adapter_model.safetensors model.layers.0.attention.q_proj",
            "the adapter holds weights for a module that the base has not",
        )
    ]


def test_one_lost_module_of_two_is_a_warning(tmp_path):
    base = checkpoint(tmp_path / "base", floats("q_proj"))

    assert [found[0] for found in findings("KB623", adapter(tmp_path / "adapter", lora("q_proj") | lora("v_proj"), base))] == [
        "warning"
    ]


def test_look_alikes(tmp_path):
    base = checkpoint(tmp_path / "base", floats("q_proj"))
    tensors = lora("q_proj") | lora("mlp.experts.0.up") | lora("lm_head") | {"base_model.model.other.weight": ("F32", (1,))}

    assert findings("KB623", adapter(tmp_path / "adapter", tensors, base)) == []
    assert findings("KB623", adapter(tmp_path / "beside", lora("q_proj"), "../base")) == []


def test_without_the_base_nothing_is_said(tmp_path):
    assert skipped("KB623", adapter(tmp_path / "a", lora("q_proj"), "org/base")) == [
        "the headers of the adapter's base are not here"
    ]
    assert skipped("KB623", adapter(tmp_path / "b", None)) == ["no adapter_model.safetensors here"]
