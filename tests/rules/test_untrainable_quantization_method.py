from __future__ import annotations

import json

import pytest
from script_cases import ADAPTED, IMPORTS, LOOP, RECIPE, TRAINED, findings, flagged_lines
from transformers.quantizers import AutoHfQuantizer

from kbitlint.api import check

#: what mlx_lm writes into config.json
MLX = {"group_size": 64, "bits": 4, "mode": "affine"}
MXFP4 = "model = AutoModelForCausalLM.from_pretrained('openai/gpt-oss-20b', quantization_config=Mxfp4Config())\n"


def test_mxfp4_cannot_be_trained_through():
    assert findings("KB524", MXFP4 + ADAPTED + TRAINED) == [("warning", TRAINED.strip(), "mxfp4 cannot be trained through")]


def test_methods_for_inference_are_errors():
    script = MXFP4.replace("Mxfp4Config", "FbgemmFp8Config") + ADAPTED + TRAINED

    assert flagged_lines("KB524", script, imports=IMPORTS + "from transformers import FbgemmFp8Config\n") == [
        ("error", TRAINED.strip())
    ]


def test_a_loop_of_ones_own_is_a_warning():
    script = MXFP4.replace("Mxfp4Config", "FbgemmFp8Config") + ADAPTED + LOOP

    assert flagged_lines("KB524", script, imports=IMPORTS + "from transformers import FbgemmFp8Config\n") == [
        ("warning", "loss.backward()")
    ]


TORCHAO = "from transformers import BitNetQuantConfig, FPQuantConfig, TorchAoConfig\nimport torchao.quantization as ao\n"


def quantized(config):
    return f"model = AutoModelForCausalLM.from_pretrained('org/base', quantization_config={config})\n"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("TorchAoConfig(ao.Int4WeightOnlyConfig(group_size=32))", "torchao's Int4WeightOnlyConfig cannot be trained through"),
        ("TorchAoConfig(quant_type=ao.IntxWeightOnlyConfig())", "torchao's IntxWeightOnlyConfig cannot be trained through"),
        ("FPQuantConfig()", "fp_quant cannot be trained through without store_master_weights=True"),
        ("BitNetQuantConfig()", "bitnet cannot be trained through without linear_class='autobitlinear'"),
        (
            "BitNetQuantConfig(linear_class='autobitlinear')",
            "bitnet cannot be trained through without quantization_mode='online'",
        ),
    ],
)
def test_arguments_that_no_trainer_takes(config, message):
    line = TRAINED.strip()

    assert findings("KB524", quantized(config) + ADAPTED + TRAINED, imports=IMPORTS + TORCHAO) == [("error", line, message)]
    assert findings("KB524", quantized(config) + ADAPTED + LOOP, imports=IMPORTS + TORCHAO) == []


@pytest.mark.parametrize(
    "config",
    [
        "TorchAoConfig(ao.Int8WeightOnlyConfig())",
        "TorchAoConfig(ao.Float8WeightOnlyConfig())",
        "TorchAoConfig(ao.Int8DynamicActivationInt8WeightConfig())",
        "TorchAoConfig(chosen)",
        "FPQuantConfig(store_master_weights=True)",
        "FPQuantConfig(**chosen)",
        "BitNetQuantConfig(linear_class='autobitlinear', quantization_mode='online')",
    ],
)
def test_arguments_with_which_it_trains_or_may(config):
    assert findings("KB524", quantized(config) + ADAPTED + TRAINED, imports=IMPORTS + TORCHAO) == []


def test_a_trainer_that_only_evaluates_refuses_too():
    script = quantized("FbgemmFp8Config()") + ADAPTED + "print(Trainer(model=model, eval_dataset=data).evaluate())\n"

    assert flagged_lines("KB524", script, imports=IMPORTS + "from transformers import FbgemmFp8Config\n") == [
        ("error", script.splitlines()[-1])
    ]


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(MXFP4.replace("Mxfp4Config()", "Mxfp4Config(dequantize=True)") + ADAPTED + TRAINED, id="dequantized"),
        pytest.param(MXFP4, id="not trained here"),
        pytest.param(MXFP4 + "model.dequantize()\n" + TRAINED, id="dequantized after loading"),
        pytest.param("model = AutoModelForCausalLM.from_pretrained(name)\n" + ADAPTED + TRAINED, id="unknown checkpoint"),
        pytest.param(RECIPE, id="bitsandbytes"),
    ],
)
def test_look_alikes(script):
    assert findings("KB524", script) == []


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ({"quant_type": {"default": {"_type": "Int4WeightOnlyConfig"}}}, ["error"]),
        ({"quant_type": {"default": {"_type": "Int8WeightOnlyConfig"}}}, []),
        ({"quant_type": {"default": None}}, []),
        ({"quant_type": "int4"}, []),
        ({}, []),
    ],
)
def test_config_json_names_the_layout_of_torchao(tmp_path, stored, expected):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "llama", "quantization_config": {"quant_method": "torchao", **stored}}))

    assert [v.severity.value for v in check(str(path), select="KB524").violations] == expected


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        *((method, ["error"]) for method in ("vptq", "exl2", "exl3", "modelopt")),
        *((method, ["warning"]) for method in ("mxfp4", "gguf", "metal")),
        *((method, []) for method in ("gptq", "compressed-tensors", "fp8", "mxfp8", "a method of tomorrow")),
        (None, ["error"]),
        ({}, ["error"]),
    ],
)
def test_config_json_names_the_method(tmp_path, method, expected):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "llama", "quantization_config": {"quant_method": method}}))

    assert [v.severity.value for v in check(str(path), select="KB524").violations] == expected


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            {"quantization": MLX, "quantization_config": MLX},
            "its weights are packed by MLX, which transformers does not unpack",
        ),
        ({"quantization": MLX}, "its weights are packed by MLX, which transformers does not unpack"),
        (
            {"quantization_config": {"bits": 4}},
            "quantization_config names no quant_method, so transformers refuses to load it",
        ),
        ({"quantization_config": {"load_in_4bit": True}}, None),
        ({"quantization_config": {}}, None),
        ({"quantization_config": {"quant_method": "mxfp4", "dequantize": True}}, None),
        (
            {"quantization_config": {"quant_method": "compressed-tensors", "use_optimized_inference": True}},
            "compressed-tensors cannot be trained through with use_optimized_inference=True",
        ),
    ],
)
def test_config_json_of_a_checkpoint_that_transformers_does_not_read(tmp_path, config, expected):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "llama", **config}))

    assert [v.message for v in check(str(path), select="KB524").violations] == ([] if expected is None else [expected])


def test_transformers_refuses_a_config_without_a_method():
    with pytest.raises(ValueError, match="no `quant_method` attribute"):
        AutoHfQuantizer.supports_quant_method(MLX)
