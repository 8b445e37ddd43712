from __future__ import annotations

import pytest
import tiny
from checkpoint_cases import adapter, lora, packed, skipped
from checkpoint_cases import findings as in_files
from peft import LoraConfig, get_peft_model
from script_cases import LOADED, findings

import kbitlint

CODE = "KB509"


def adapted(*saved, **config):
    return get_peft_model(tiny.load(), LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=list(saved), **config))


def found(model):
    return [(v.at.path, v.message, v.severity.value) for v in kbitlint.check(model, select=CODE).violations]


def test_a_frozen_copy_of_a_packed_layer_is_flagged_and_cannot_be_unfrozen():
    model = adapted("k_proj", inference_mode=True)

    assert found(model) == [
        (
            f"model.layers.{i}.self_attn.k_proj.modules_to_save.default",
            "k_proj is to be trained as a copy, and is packed as nf4",
            "error",
        )
        for i in (0, 1)
    ]
    with pytest.raises(RuntimeError, match="only Tensors of floating point"):
        model.get_base_model().model.layers[0].self_attn.k_proj.modules_to_save["default"].requires_grad_(True)


def test_peft_refuses_to_train_it_from_the_start():
    with pytest.raises(RuntimeError, match="only Tensors of floating point"):
        adapted("k_proj")


def test_a_copy_of_a_float_layer_is_not_flagged_and_trains():
    model = adapted("lm_head")

    assert found(model) == []
    assert any("lm_head" in name for name in tiny.step(model).arrived)


def test_without_adapters_the_rule_is_skipped():
    assert kbitlint.check(tiny.load(), select=CODE).skips[0].reason == "no adapters are attached yet"


NAMED = LOADED.replace("org/base", "meta-llama/Llama-3.2-1B")


@pytest.mark.parametrize(
    ("script", "flagged"),
    [
        pytest.param(NAMED, 1, id="a family whose layers are known"),
        pytest.param(NAMED.replace("load_in_4bit=True", "load_in_4bit=True, llm_int8_skip_modules=['k_proj', 'lm_head']"), 0,
                     id="left out of quantization"),
        pytest.param(NAMED.replace("4bit=True", "4bit=True, llm_int8_skip_modules=names"), 0, id="an unknown list"),
        pytest.param(NAMED.replace("quantization_config=bnb, ", ""), 0, id="not quantized"),
        pytest.param(LOADED, 1, id="a name that every family packs"),
        pytest.param(LOADED.replace("org/base", "tiiuae/falcon-7b"), 0, id="another layer"),
        pytest.param(NAMED.replace("quantization_config=bnb, ", "").replace("3.2-1B", "3.2-1B-GPTQ"), 0, id="another method"),
    ],
)  # fmt: skip
def test_a_script_that_saves_a_packed_layer(script, flagged):
    attach = "model = get_peft_model(model, LoraConfig(target_modules=['q_proj'], modules_to_save=['k_proj']))\n"

    assert findings(CODE, script + attach) == flagged * [
        ("error", attach.strip(), "k_proj is to be trained as a copy, and is packed")
    ]


@pytest.mark.parametrize(
    ("names", "flagged"),
    [
        ("[f'layers.{i}.mlp.gate_proj' for i in range(3)]", 1),
        ("last(2)", 1),
        ("[f'layers.{i}.mlp.own_part' for i in range(3)]", 0),
        ("[f'{name}_proj' for name in names]", 0),
    ],
)
def test_a_script_that_builds_the_paths_of_packed_layers(names, flagged):
    maker = "def last(count):\n    return [f'model.layers.{i}.mlp.gate_proj' for i in range(count)]\n"
    attach = f"model = get_peft_model(model, LoraConfig(target_modules=['q_proj'], modules_to_save={names}))\n"

    assert findings(CODE, maker + NAMED + attach) == flagged * [
        ("error", attach.strip(), "gate_proj is to be trained as a copy, and is packed")
    ]


class TestScripts:
    """Adapter configs in scripts."""

    @pytest.mark.parametrize(
        ("settings", "skips", "found"),
        [
            ("modules_to_save=['down_proj']", "", True),
            ("modules_to_save=['embed_tokens', 'lm_head']", "", False),
            ("modules_to_save=['proj_out']", "", False),  # Whisper's head
            ("modules_to_save=['down_proj']", ", llm_int8_skip_modules=['down_proj', 'lm_head']", False),
            ("target_modules=['down_proj']", "", False),
        ],
    )
    def test_a_packed_layer_in_modules_to_save_is_an_error(self, settings, skips, found):
        body = LOADED.replace("load_in_4bit=True", f"load_in_4bit=True{skips}")
        body += f"model = get_peft_model(model, LoraConfig({settings}))\n"
        message = "down_proj is to be trained as a copy, and is packed"

        assert [(severity, said) for severity, _, said in findings("KB509", body)] == [("error", message)] * found

    def test_a_model_that_is_not_packed_is_clean(self):
        body = LOADED.replace("quantization_config=bnb, ", "")

        assert findings("KB509", body + "model = get_peft_model(model, LoraConfig(modules_to_save=['down_proj']))\n") == []

    def test_peft_raises_for_such_a_copy(self):
        model = tiny.load("llama", kind="nf4")
        config = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], modules_to_save=["down_proj"])

        with pytest.raises(RuntimeError, match="floating point"):
            get_peft_model(model, config)


def test_a_saved_copy_that_is_packed_was_never_trained(tmp_path):
    copy = packed("base_model.model.model.layers.0.self_attn.k_proj")
    folder = adapter(tmp_path / "packed", lora("model.layers.0.self_attn.q_proj") | copy)

    assert in_files(CODE, folder) == [
        (
            "error",
            "adapter_model.safetensors base_model.model.model.layers.0.self_attn.k_proj.weight",
            "the adapter's file holds a packed weight: the copy to save was quantized and never trained",
        )
    ]


def test_adapter_files_without_packed_weights_are_clean_and_missing_ones_are_skipped(tmp_path):
    assert in_files(CODE, adapter(tmp_path / "plain", lora("model.layers.0.self_attn.q_proj"))) == []
    assert skipped(CODE, adapter(tmp_path / "bare", None)) == ["no adapter_model.safetensors here"]
