"""KB590, and what KB509, KB535 and KB607 say of further entries of an adapter's config that match nothing, or packed layers."""

from __future__ import annotations

import pytest
import tiny
from peft import LoraConfig, get_peft_model
from script_cases import IMPORTS, LOADED, OLD, findings

from kbitlint.api import check

CODE = "KB590"
LLAMA = LOADED.replace("org/base", "meta-llama/Llama-3.1-8B")
VISION = IMPORTS + "from transformers import AutoModel, AutoModelForImageTextToText\n"


def attach(config, loaded=LLAMA, code=CODE, **how):
    body = loaded + f"model = get_peft_model(model, LoraConfig({config}))\n"
    return [(severity, message) for severity, _, message in findings(code, body, **how)]


def seeing(checkpoint):
    return LOADED.replace("org/base", checkpoint).replace("AutoModelForCausalLM", "AutoModelForImageTextToText")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            "target_modules=['q_proj'], layers_to_transform=list(range(32, 40))",
            [("error", "layers_to_transform names layer 32, and the last of 32 layers is 31: PEFT raises")],
        ),
        (
            "target_modules=['q_proj'], layers_to_transform=[30, 31, 32]",
            [("warning", "layers_to_transform names layer 32, and the last of 32 layers is 31")],
        ),
        ("target_modules=['q_proj'], layers_to_transform=list(range(24, 32))", []),
        (
            "target_modules=['q_proj'], layers_to_transform=[1], layers_pattern='h'",
            [("error", "layers_pattern names h, and the list of layers is called model.layers: PEFT raises")],
        ),
        ("target_modules=['q_proj'], layers_to_transform=[1], layers_pattern='layers'", []),
        (
            "target_modules=['q_proj'], modules_to_save=['wte', 'lm_head']",
            [("warning", "modules_to_save names wte, which this model does not have: it has embed_tokens and lm_head")],
        ),
        ("target_modules=['q_proj'], modules_to_save=['embed_tokens', 'lm_head', 'own_head']", []),
        (
            "target_modules=r'transformer\\.h\\.\\d+\\.attn\\.(q|v)_proj'",
            [
                (
                    "error",
                    "target_modules matches no module: the first linear layer is model.layers.0.self_attn.q_proj: PEFT raises",
                )
            ],
        ),
        ("target_modules=r'model\\.layers\\.(2[0-9]|3[01])\\..*_proj'", []),
        ("target_modules=r'(a+)+b$'", []),
    ],
)
def test_entries_of_a_config_for_a_language_model(config, expected):
    if "(a+)" in config:
        assert attach(config)[:1] in ([], attach(config))  # it matches nothing, or takes too long
    else:
        assert attach(config) == expected
    assert attach(config, LOADED) == []
    assert attach(config, LLAMA.replace("=bnb", "=bnb, trust_remote_code=True")) == []


@pytest.mark.parametrize(
    ("checkpoint", "pattern", "count"),
    [
        ("llava-hf/llava-1.5-7b-hf", r"language_model\.model\.layers\.\d+\.self_attn\.(q|v)_proj", 1),
        ("Qwen/Qwen2.5-VL-7B-Instruct", r"model\.layers\.\d+\.self_attn\.(q|v)_proj", 1),
        ("Qwen/Qwen2.5-VL-7B-Instruct", r".*language_model.*(q|v)_proj", 0),
        ("llava-hf/llava-1.5-7b-hf", r".*model\.layers\.\d+\.self_attn\.(q|v)_proj", 0),
    ],
)
def test_paths_of_language_layers_behind_an_image_tower(checkpoint, pattern, count):
    config = f"target_modules=r'{pattern}'"

    assert (
        attach(config, seeing(checkpoint), imports=VISION)
        == [
            (
                "error",
                "target_modules matches paths of transformers 4, and since 5 they start with model.language_model: PEFT raises",
            )
        ]
        * count
    )
    assert attach(config, seeing(checkpoint), imports=VISION, versions=OLD) == []


@pytest.mark.parametrize(("skips", "count"), [("", 1), (", llm_int8_skip_modules=['model.multi_modal_projector']", 0)])
def test_a_projector_to_save_is_packed_with_the_rest(skips, count):
    loaded = seeing("llava-hf/llava-1.5-7b-hf").replace("load_in_4bit=True", "load_in_4bit=True" + skips)

    assert (
        attach("target_modules=['q_proj'], modules_to_save=['multi_modal_projector']", loaded, "KB509", imports=VISION)
        == [("error", "multi_modal_projector is to be trained as a copy, and is packed")] * count
    )


def test_a_pattern_for_ranks_is_compared_with_the_paths_of_the_family():
    config = "target_modules=['q_proj'], rank_pattern={'attn.q_proj': 32, 'self_attn.q_proj': 16}"

    assert attach(config, code="KB607") == [
        ("warning", "rank_pattern names 'attn.q_proj', which matches none of target_modules: the default is used")
    ]
    assert attach(config, LOADED, "KB607") == []


def test_a_base_without_a_head_has_no_text_to_generate():
    loaded = LLAMA.replace("AutoModelForCausalLM", "AutoModel")
    message = "get_peft_model raises an AttributeError: object has no attribute 'prepare_inputs_for_generation'"

    assert attach("task_type='SEQ_2_SEQ_LM'", loaded, "KB535", imports=VISION) == [("error", message)]
    assert attach("task_type='FEATURE_EXTRACTION'", loaded, "KB535", imports=VISION) == []


def test_peft_raises_or_leaves_out_as_the_rule_says():
    kept = get_peft_model(tiny.load(kind="none"), LoraConfig(target_modules=["q_proj"], modules_to_save=["wte"]))
    refused = [
        {"layers_to_transform": [5]},
        {"layers_to_transform": [0], "layers_pattern": "h"},
        {"target_modules": r"transformer\.h\.\d+\.q_proj"},
    ]

    assert [name for name, _ in kept.named_modules() if "modules_to_save" in name] == []
    for config in refused:
        with pytest.raises(ValueError, match="not found"):
            get_peft_model(tiny.load(kind="none"), LoraConfig(**{"target_modules": ["q_proj"], **config}))


def test_a_program_chooses_the_class_of_its_model_which_may_have_a_vision_tower(tmp_path):
    path = tmp_path / "qlora.yml"
    path.write_text(
        "base_model: mistralai/Magistral-Small-2509\nload_in_4bit: true\nadapter: qlora\nmicro_batch_size: 1\n"
        "datasets: [{path: d, type: chat_template}]\nsequence_len: 512\n"
        "lora_target_modules: 'model.language_model.layers.[\\d]+.self_attn.(q|v)_proj'\n"
    )

    assert [one.message for one in check(str(path)).violations if one.code == CODE] == []
