from __future__ import annotations

import json
from pathlib import Path

import pytest
from checkpoint_cases import BNB
from script_cases import IMPORTS, LOADED, findings, fixed_text

import kbitlint


def codes(tmp_path, config, script, select="KB526"):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
    path = tmp_path / "train.py"
    path.write_text(IMPORTS + script.replace("org/base", "base"))
    return [(v.code, v.severity.value, v.message) for v in kbitlint.check(str(path), select=select).violations]


def test_a_stored_quantization_wins_over_the_one_that_is_passed(tmp_path):
    assert codes(tmp_path, {"quantization_config": BNB}, LOADED) == [
        (
            "KB526",
            "warning",
            "the checkpoint is stored quantized (bitsandbytes), and its config wins over the one that is passed",
        )
    ]


EIGHT = {"quant_method": "bitsandbytes", "load_in_8bit": True}
ARGUMENT = "quantization_config=bnb"


@pytest.mark.parametrize(
    ("stored", "argument", "message"),
    [
        ({"quant_method": "mxfp4"}, ARGUMENT, "(mxfp4), and a BitsAndBytesConfig for it is refused: a ValueError"),
        (BNB, "quantization_config=Mxfp4Config()", "(bitsandbytes), and a Mxfp4Config for it is refused: a ValueError"),
        (
            BNB,
            "quantization_config=None",
            "(bitsandbytes), and without its config it does not load: a RuntimeError",
        ),
        (
            EIGHT,
            "quantization_config=None",
            "(bitsandbytes), and without its config the integers are taken for weights",
        ),
    ],
)
def test_another_method_and_none_are_errors(tmp_path, stored, argument, message):
    assert codes(tmp_path, {"quantization_config": stored}, LOADED.replace(ARGUMENT, argument)) == [
        ("KB526", "error", f"the checkpoint is stored quantized {message}")
    ]


def test_the_fix_takes_none_out(tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text(json.dumps({"model_type": "llama", "quantization_config": BNB}))

    after = fixed_text("KB526", LOADED.replace("org/base", "base").replace(ARGUMENT, "quantization_config=None"), tmp_path)

    assert after == LOADED.replace("org/base", "base").replace(f"{ARGUMENT}, ", "")


@pytest.mark.parametrize(
    ("config", "script"),
    [
        pytest.param(
            {"quantization_config": {"quant_method": "mxfp4"}},
            LOADED.replace(ARGUMENT, "quantization_config=Mxfp4Config(dequantize=True)"),
            id="how it is loaded is taken over",
        ),
        pytest.param(
            {"quantization_config": BNB},
            "from transformers import LlamaForCausalLM\n"
            + LOADED.replace(ARGUMENT, "quantization_config=None").replace("AutoModelForCausalLM", "LlamaForCausalLM"),
            id="a class of its own leaves the stored config alone",
        ),
        pytest.param(
            {"quantization_config": BNB},
            LOADED.replace(ARGUMENT, "quantization_config=None if stored else bnb"),
            id="depends on the path",
        ),
        pytest.param(
            {"quantization_config": {"quant_method": "gptq"}},
            LOADED.replace(ARGUMENT, "quantization_config=None"),
            id="none for another method",
        ),
        pytest.param(
            {"quantization_config": {"quant_method": "gptq"}},
            "from transformers import AutoRoundConfig\n" + LOADED.replace(ARGUMENT, "quantization_config=AutoRoundConfig()"),
            id="auto-round reads the formats of others",
        ),
        pytest.param({}, LOADED, id="not quantized"),
        pytest.param({"quantization_config": BNB}, LOADED.replace("quantization_config=bnb, ", ""), id="nothing passed"),
        pytest.param({"quantization_config": BNB}, LOADED.replace("=bnb,", "=config,"), id="unknown config"),
        pytest.param({"quantization_config": BNB}, LOADED.replace("org/base", "org/other"), id="not on this machine"),
    ],
)
def test_look_alikes(tmp_path, config, script):
    assert codes(tmp_path, config, script) == []


PREPARE = "model = AutoModelForCausalLM.from_pretrained('org/base')\nmodel = prepare_model_for_kbit_training(model)\n"


@pytest.mark.parametrize(("config", "found"), [({}, ["KB221"]), ({"quantization_config": BNB}, [])])
def test_what_a_checkpoint_stores_is_known_to_other_rules_too(tmp_path, config, found):
    assert [code for code, *_ in codes(tmp_path, config, PREPARE, select="KB221")] == found


def test_the_hubs_cache_is_looked_into(tmp_path, monkeypatch):
    from kbitlint.files import local_configs

    snapshot = tmp_path / "hub" / "models--org--cached" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (tmp_path / "hub" / "models--org--cached" / "refs").mkdir()
    (tmp_path / "hub" / "models--org--cached" / "refs" / "main").write_text("abc")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    local_configs.checkpoint_config.cache_clear()

    assert local_configs.checkpoint_config("org/cached", tmp_path) == {"model_type": "llama"}
    for name in ("org/other", "", "\0", "../escape/x", "a" * 5000):
        assert local_configs.checkpoint_config(name, tmp_path) is None


def test_a_relative_name_belongs_to_the_working_folder(tmp_path, monkeypatch):
    from kbitlint.files.local_configs import checkpoint_config, zero_stage

    for kind in ("llama", "gpt2"):
        (tmp_path / kind / "base").mkdir(parents=True)
        (tmp_path / kind / "base" / "config.json").write_text(json.dumps({"model_type": kind}))
        (tmp_path / kind / "ds.json").write_text(json.dumps({"zero_optimization": {"stage": len(kind) - 3}}))
    found = []
    for kind in ("llama", "gpt2", "llama"):
        monkeypatch.chdir(tmp_path / kind)
        found.append((checkpoint_config("base", Path()), zero_stage("ds.json", Path())))

    assert found == [({"model_type": "llama"}, 2), ({"model_type": "gpt2"}, 1), ({"model_type": "llama"}, 2)]


def test_the_stage_of_a_deepspeed_file_beside_the_script(tmp_path):
    from kbitlint.files.local_configs import zero_stage

    (tmp_path / "ds.json").write_text('{"zero_optimization": {"stage": 3}}')
    (tmp_path / "odd.json").write_text('{"zero_optimization": {"stage": "3"}}')
    (tmp_path / "broken.json").write_text("{")

    assert [zero_stage(name, tmp_path) for name in ("ds.json", "odd.json", "broken.json", "gone.json", "ds.yaml")] == [
        3,
        None,
        None,
        None,
        None,
    ]


AXOLOTL = "base_model: base\nload_in_4bit: true\nadapter: qlora\nmicro_batch_size: 2\ngradient_checkpointing: true\n"
FACTORY = "model_name_or_path: base\nstage: sft\nfinetuning_type: lora\ntemplate: x\nquantization_bit: 4\n"


DROPPED = "the checkpoint is stored quantized (gptq), and `quantization_bit` will not affect on the PTQ-quantized models"


@pytest.mark.parametrize(("text", "found"), [(AXOLOTL, []), (FACTORY, [("warning", DROPPED)])])
def test_a_program_that_looks_at_the_stored_config_first_refuses_nothing(tmp_path, text, found):
    """axolotl builds its config from the stored one, and LLaMA-Factory drops its own with a warning."""
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text(
        json.dumps({"model_type": "llama", "quantization_config": {"quant_method": "gptq", "bits": 4}})
    )
    (tmp_path / "train.yaml").write_text(text)
    report = kbitlint.check(str(tmp_path / "train.yaml"), select="KB526")

    assert [(v.severity.value, v.message) for v in report.violations] == found


@pytest.mark.parametrize(
    ("head", "found"),
    [
        ("def load(name='unsloth/llama-3-8b-bnb-4bit', r=1):\n    ", 0),
        ("def load(\n    name: str = 'unsloth/llama-3-8b-bnb-4bit',\n):\n    ", 0),
        ("name = 'unsloth/llama-3-8b-bnb-4bit'\n", 1),
    ],
)
def test_a_default_of_a_parameter_is_no_checkpoint(head, found):
    load = LOADED.splitlines()[1].replace('"org/base"', "name")
    body = LOADED.splitlines()[0] + "\n" + head + load + "\n"

    assert len(findings("KB526", body)) == found


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("openai/gpt-oss-20b", "mxfp4"),
        ("openai/gpt-oss-safeguard-120b", "mxfp4"),
        ("deepseek-ai/DeepSeek-V3-0324", "fp8"),
        ("deepseek-ai/DeepSeek-R1", "fp8"),
        ("moonshotai/Kimi-K2-Thinking", "compressed-tensors"),
        ("Qwen/Qwen3-8B-FP8", "fp8"),
        ("microsoft/bitnet-b1.58-2B-4T", "bitnet"),
        ("unsloth/gpt-oss-20b-BF16", ""),
        ("someone/gpt-oss-20b-tuned", ""),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", ""),
        ("microsoft/bitnet-b1.58-2B-4T-bf16", ""),
    ],
)
def test_what_a_publisher_stores_in_another_method_refuses_the_config(name, stored):
    message = f"the checkpoint is stored quantized ({stored}), and a BitsAndBytesConfig for it is refused: a ValueError"
    script = LOADED.replace("org/base", name)

    assert [(one, text) for one, _, text in findings("KB526", script)] == ([("error", message)] if stored else [])
    assert findings("KB526", script.replace(ARGUMENT, "quantization_config=Mxfp4Config()")) == [] or stored != "mxfp4"
    assert findings("KB526", script.replace(f"{ARGUMENT}, ", "")) == []


def test_a_load_that_is_tried_again_with_the_same_arguments_is_one_violation(tmp_path):
    given = 'options = {"quantization_config": bnb, "dtype": torch.bfloat16}\n'
    load = 'AutoModelForCausalLM.from_pretrained("org/base", **options)\n'
    script = LOADED.partition("model = ")[0] + given + f"try:\n    model = {load}except TypeError:\n    model = {load}"

    assert len(codes(tmp_path, {"quantization_config": BNB}, script)) == 1
