from __future__ import annotations

from checkpoint_cases import adapter, checkpoint, findings, floats, lora, skipped


def rows(name, count):
    return {f"base_model.model.{name}.weight": ("F32", (count, 2))}


def test_more_rows_than_the_base_has(tmp_path):
    base = checkpoint(tmp_path / "base", floats("model.embed_tokens"), vocab_size=4)
    folder = adapter(tmp_path / "adapter", lora("q_proj") | rows("model.embed_tokens", 6) | rows("lm_head", 6), base)

    assert findings("KB626", folder) == [
        (
            "error",
            f"adapter_model.safetensors base_model.model.{name}.weight",
            f"the adapter's {name.rpartition('.')[2]} has 6 rows, and the base has 4",
        )
        for name in ("lm_head", "model.embed_tokens")
    ]


def test_look_alikes(tmp_path):
    base = checkpoint(tmp_path / "base", None, vocab_size=4)
    tensors = rows("model.embed_tokens", 4) | rows("model.score", 2) | lora("lm_head")

    assert findings("KB626", adapter(tmp_path / "adapter", tensors, base)) == []


def test_without_the_base_nothing_is_said(tmp_path):
    assert skipped("KB626", adapter(tmp_path / "a", lora("q"), "org/base")) == ["the config of the adapter's base is not here"]
    assert skipped("KB626", adapter(tmp_path / "b", None)) == ["no adapter_model.safetensors here"]
