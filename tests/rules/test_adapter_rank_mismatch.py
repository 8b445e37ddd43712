"""KB607: the rank of an adapter's config against its tensors."""

from __future__ import annotations

import json

import peft
import pytest
import tiny
from checkpoint_cases import adapter, findings, lora

MODULES = {**lora("model.layers.0.self_attn.q_proj"), **lora("model.layers.0.self_attn.v_proj")}


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"r": 2}, []),
        ({"r": 16}, [("error", "adapter_config.json r", "the config gives rank 16, and the tensors have rank 2")]),
        ({"r": 16, "rank_pattern": {"q_proj": 2, "v_proj": 2}}, []),
        (
            {"r": 2, "rank_pattern": {"q_proj": 8}},
            [
                (
                    "error",
                    "adapter_config.json base_model.model.model.layers.0.self_attn.q_proj",
                    "the config gives rank 8, and the tensors have rank 2",
                )
            ],
        ),
        ({"r": 2, "rank_pattern": {"^q_proj": 8}}, []),
    ],
)
def test_the_rank_of_the_config_is_compared_with_the_tensors(tmp_path, config, found):
    folder = adapter(tmp_path / "adapter", MODULES, **config)

    assert [(severity, str(place), message) for severity, place, message in findings("KB607", folder)] == found


def test_a_folder_without_tensors_is_not_judged(tmp_path):
    assert findings("KB607", adapter(tmp_path / "adapter", None, r=4)) == []


def test_peft_refuses_to_load_it(tmp_path):
    peft.get_peft_model(tiny.load(kind="none"), peft.LoraConfig(r=4, target_modules=["q_proj"])).save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "r": 8}))

    with pytest.raises(RuntimeError, match="size mismatch"):
        peft.PeftModel.from_pretrained(tiny.load(kind="none"), tmp_path)
    assert [severity for severity, *_ in findings("KB607", tmp_path)] == ["error"]
