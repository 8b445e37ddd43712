"""Configurations with one fault each, as people write them, and the reports of all rules on them."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util

import pytest
from script_cases import document

from kbitlint.audit.scripts import run
from kbitlint.context import TrainingContext
from kbitlint.registry import all_rules
from kbitlint.upstream.keys import accepted, meant_keys

AXOLOTL = """\
base_model: NousResearch/Llama-2-7b-hf
load_in_4bit: true
adapter: qlora
lora_r: 16
lora_dropout: 0.05
datasets: [{path: some/data, type: alpaca}]
micro_batch_size: 2
gradient_checkpointing: true
gradient_checkpointing_kwargs: {use_reentrant: false}
bf16: auto
optimizer: paged_adamw_32bit
"""
FACTORY = """\
model_name_or_path: Qwen/Qwen2.5-7B-Instruct
stage: sft
do_train: true
finetuning_type: lora
quantization_bit: 4
lora_target: all
template: qwen
cutoff_len: 1024
bf16: true
use_reentrant_gc: false
"""
SWIFT = """\
model: Qwen/Qwen2.5-7B-Instruct
tuner_type: lora
dataset: [some/data]
quant_method: bnb
quant_bits: 4
torch_dtype: bfloat16
lora_rank: 8
target_modules: all-linear
"""
TRL = """\
model_name_or_path: Qwen/Qwen2.5-7B
dataset_name: some/data
use_peft: true
load_in_4bit: true
dtype: bfloat16
lora_r: 16
lora_target_modules: [q_proj, v_proj]
"""
DATA = "datasets: [{path: some/data, type: "
#: (configuration, its change, what is reported: code, severity, the line)
CASES = [
    (AXOLOTL, {}, []),
    (AXOLOTL, {"load_in_4bit: true": "load_in_4bits: true"}, [("KB536", "warning", "load_in_4bits: true")]),
    (AXOLOTL, {"adapter: qlora": "adapter: lora"}, [("KB535", "warning", "load_in_4bit: true")]),
    (AXOLOTL, {"load_in_4bit: true": "load_in_8bit: true"}, [("KB535", "error", "load_in_8bit: true")]),
    (AXOLOTL, {"adapter: qlora": "adapter: dora"}, [("KB535", "error", "adapter: dora")]),
    (
        AXOLOTL,
        {"lora_r: 16": "lora_r: 16\nlora_target_parameters: [mlp.experts.down_proj]"},
        [("KB535", "error", "lora_target_parameters: [mlp.experts.down_proj]")],
    ),
    (
        AXOLOTL,
        {"lora_r: 16": "lora_r: 16\nquantize_moe_experts: true\nlora_target_linear: true"},
        [("KB535", "error", "lora_target_linear: true")],
    ),
    (AXOLOTL, {"NousResearch/Llama-2-7b-hf": "mistralai/Mixtral-8x7B-v0.1"}, [("KB504", "warning", "load_in_4bit: true")]),
    (
        AXOLOTL,
        {"NousResearch/Llama-2-7b-hf": "mistralai/Mixtral-8x7B-v0.1", "lora_r: 16": "quantize_moe_experts: true"},
        [],
    ),
    (
        AXOLOTL,
        {"NousResearch/Llama-2-7b-hf": "google/gemma-2-9b", "bf16: auto": "fp16: true"},
        [("KB121", "warning", "fp16: true")],
    ),
    (
        AXOLOTL,
        {"lora_r: 16": "lora_r: 16\npeft_init_lora_weights: pissa"},
        [("KB620", "error", "peft_init_lora_weights: pissa")],
    ),
    (
        AXOLOTL,
        {"paged_adamw_32bit": "adamw_torch\nfsdp_version: 2\nfsdp_config:\n  cpu_ram_efficient_loading: true"},
        [("KB535", "error", "fsdp_version: 2")],
    ),
    (
        AXOLOTL,
        {"paged_adamw_32bit": "adamw_bnb_8bit\nfsdp_version: 2\nfsdp_config:\n  offload_params: false"},
        [("KB709", "error", "optimizer: adamw_bnb_8bit")],
    ),
    (
        AXOLOTL,
        {"paged_adamw_32bit": "adamw_torch\nfsdp_version: 2\nfsdp_config:\n  activation_checkpointing: true"},
        [("KB724", "error", "gradient_checkpointing: true")],
    ),
    (FACTORY, {}, []),
    (FACTORY, {"quantization_bit: 4": "quantization_bits: 4"}, [("KB536", "error", "quantization_bits: 4")]),
    (AXOLOTL, {"type: alpaca": "type: alpacca"}, [("KB535", "error", f"{DATA}alpacca}}]")]),
    (AXOLOTL, {"type: alpaca": "type: alpaca:chat"}, []),
    (AXOLOTL, {"type: alpaca": "type: my_module.load_mine"}, []),
    (AXOLOTL, {"bf16: auto": "bf16: auto\nrl: dpo"}, [("KB535", "error", f"{DATA}alpaca}}]")]),
    (AXOLOTL, {"bf16: auto": "bf16: auto\nrl: dpo", "type: alpaca": "type: chatml.intel"}, []),
    (
        AXOLOTL,
        {"bf16: auto": "bf16: auto\nrl: dpo", "type: alpaca": "type: chatml.argilla"},
        [("KB535", "error", f"{DATA}chatml.argilla}}]")],
    ),
    (
        AXOLOTL,
        {"NousResearch/Llama-2-7b-hf": "meta-llama/Llama-3.1-8B", "type: alpaca": "type: chat_template"},
        [("KB535", "error", f"{DATA}chat_template}}]")],
    ),
    (
        AXOLOTL,
        {
            "NousResearch/Llama-2-7b-hf": "meta-llama/Llama-3.1-8B",
            "type: alpaca": "type: chat_template",
            "bf16: auto": "bf16: auto\nchat_template: llama3",
        },
        [],
    ),
    (FACTORY, {"template: qwen": "template: qwen25"}, [("KB535", "error", "template: qwen25")]),
    (FACTORY, {"template: qwen": "template: llama2"}, [("KB734", "warning", "template: llama2")]),
    (FACTORY, {"Qwen/Qwen2.5-7B-Instruct": "org/own", "template: qwen": "template: llama2"}, []),
    (SWIFT, {"lora_rank: 8": "lora_rank: 8\nrlhf_type: reward"}, [("KB535", "error", "rlhf_type: reward")]),
    (
        SWIFT,
        {"lora_rank: 8": "lora_rank: 8\nrlhf_type: grpo\ngradient_accumulation_steps: 2"},
        [("KB535", "warning", "rlhf_type: grpo")],
    ),
    (FACTORY, {"lora_target: all": "lora_target: q_proj,v_proj"}, []),
    (FACTORY, {"lora_target: all": "lora_target: c_attn,c_proj"}, [("KB601", "error", "lora_target: c_attn,c_proj")]),
    (FACTORY, {"bf16: true": "bf16: true\npissa_init: true"}, [("KB535", "error", "pissa_init: true")]),
    (FACTORY, {"bf16: true": "bf16: true\nresize_vocab: true"}, [("KB535", "error", "resize_vocab: true")]),
    (
        FACTORY,
        {"bf16: true": "bf16: true\nfp16: true"},
        [("KB535", "error", "fp16: true"), ("KB121", "warning", "fp16: true")],
    ),
    (
        FACTORY,
        {"finetuning_type: lora": "finetuning_type: full"},
        [("KB220", "error", "finetuning_type: full")],
    ),
    (
        FACTORY,
        {"quantization_bit: 4": "quantization_bit: 8\ndeepspeed: examples/ds_z3_config.json"},
        [("KB535", "error", "quantization_bit: 8")],
    ),
    (
        FACTORY,
        {"quantization_bit: 4": "quantization_bit: 4\nquantization_device_map: auto"},
        [("KB535", "error", "quantization_device_map: auto")],
    ),
    (SWIFT, {}, []),
    (SWIFT, {"quant_method: bnb\n": ""}, [("KB535", "warning", "quant_bits: 4")]),
    (SWIFT, {"quant_bits: 4": "quant_bits: 3"}, [("KB535", "error", "quant_method: bnb")]),
    (SWIFT, {"quant_bits: 4": "quants_bits: 4"}, [("KB536", "error", "quants_bits: 4")]),
    (SWIFT, {"tuner_type: lora": "tuner_type: full"}, [("KB220", "error", "tuner_type: full")]),
    (SWIFT, {"lora_rank: 8": "lora_rank: 8\ngradient_checkpointing: false"}, []),  # a written choice is an info
    (TRL, {}, []),
    (TRL, {"lora_r: 16": "lora_r: 16\nload_in_8bit: true"}, [("KB535", "error", "load_in_8bit: true")]),
    (TRL, {"load_in_4bit": "load_in_4bits"}, [("KB536", "error", "load_in_4bits: true")]),
    (TRL, {"lora_r: 16": "lora_r: 16\noptim: paged_adamw_8bits"}, [("KB535", "error", "optim: paged_adamw_8bits")]),
    (TRL, {"Qwen/Qwen2.5-7B": "google/gemma-3-4b-it", "bfloat16": "float16"}, [("KB121", "warning", "dtype: float16")]),
]


def reported(text, suffix=".yaml"):
    """Return (code, severity, line) of everything that the rules report of a configuration, infos left out."""
    read = document(text, suffix)
    outcome, _ = run(all_rules(), read.facts, TrainingContext())
    lines = text.split("\n")

    assert outcome.crashes == ()
    return sorted(
        (v.code, v.severity.value, lines[v.at.line - 1].strip()) for v in outcome.violations if v.severity.value != "info"
    )


@pytest.mark.parametrize(("text", "change", "expected"), CASES)
def test_a_configuration_gives_its_fault_and_nothing_else(text, change, expected):
    for old, new in change.items():
        assert old in text
        text = text.replace(old, new)

    assert reported(text) == sorted(expected)


SHELL = """\
#!/bin/bash
# quant_bits 4, as swift sft has it
CUDA_VISIBLE_DEVICES=0 \\
swift sft \\
    --model Qwen/Qwen2.5-7B-Instruct \\
    --tuner_type lora \\
    --dataset 'some/data#500' other/data \\
    --quant_method bnb --quant_bits 4 \\
    --output_dir "$OUT" \\
    --learning_rate=1e-4   # the end
echo --quant_bits 3
"""
LINE = "llamafactory-cli train --model_name_or_path a/b --stage sft --finetuning_type lora --quantization_bit 4{}\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SHELL, []),
        (SHELL.replace("--quant_method bnb ", ""), [("KB535", "warning", "--quant_bits 4 \\\\")]),
        (SHELL.replace("--quant_bits 4", "--quant_bits $BITS"), []),
        (SHELL.replace("--quant_bits 4", "--quant_bits=3"), [("KB535", "error", "--quant_method bnb --quant_bits=3 \\\\")]),
        (LINE.format(" --use_reentrant_gc false"), []),
        (LINE.format(" --pissa_init"), [("KB535", "error", LINE.format(" --pissa_init").strip())]),
        (
            "trl sft --model_name_or_path a/b --use_peft --load_in_4bit --load_in_8bit\n",
            [("KB535", "error", "trl sft --model_name_or_path a/b --use_peft --load_in_4bit --load_in_8bit")],
        ),
    ],
)
def test_the_flags_of_a_training_command_are_its_configuration(text, expected):
    assert reported(text, ".sh") == [(code, severity, line.replace("\\\\", "\\")) for code, severity, line in expected]


@pytest.mark.parametrize(
    "text", ["echo load_in_4bit\n", "swift sft\n", "./swift sft --quant_bits 4\n", "python train.py --bits 4\n"]
)
def test_a_shell_script_without_such_a_command_is_not_judged(text):
    assert document(text, ".sh") is None


def test_a_fix_of_a_shell_script_is_display_only():
    outcome, _ = run(all_rules(), document(SHELL + "", ".sh").facts, TrainingContext())
    wrong, _ = run(all_rules(), document(LINE.format(" --gradient_checkpoint true"), ".sh").facts, TrainingContext())

    assert [v.fix.edits for v in (*outcome.violations, *wrong.violations) if v.fix is not None and v.fix.edits] == []
    assert "KB536" in {v.code for v in wrong.violations}


RECIPES = {
    "torchtune": "model:\n  _component_: torchtune.models.llama2.qlora_llama2_7b\n  lora_rank: 8\n",
    "Ludwig": "model_type: llm\nbase_model: a/b\nquantization:\n  bits: 4\nadapter:\n  type: lora\n",
    "AutoTrain": "task: llm-sft\nbase_model: a/b\nbackend: local\nparams:\n  quantization: int4\n",
    "NeMo AutoModel": "model:\n  _target_: nemo_automodel.NeMoAutoModelForCausalLM.from_pretrained\n",
    "LitGPT": "checkpoint_dir: checkpoints/a\nquantize: bnb.nf4\nlora_r: 8\n",
    "verl": "actor_rollout_ref:\n  model:\n    path: a/b\n",
    "H2O LLM Studio": "architecture:\n    backbone_dtype: int4\nllm_backbone: a/b\n",
    "OpenRLHF": "actor_num_nodes: 1\nload_in_4bit: true\n",
    "Oumi": "model:\n  model_name: a/b\npeft:\n  q_lora: true\n",
}


@pytest.mark.parametrize(("name", "text"), RECIPES.items(), ids=RECIPES)
def test_a_program_that_is_not_judged_is_a_skip_that_names_it(name, text):
    outcome, _ = run(all_rules(), document(text, ".yaml").facts, TrainingContext())

    assert [skip.reason for skip in outcome.skips] == [
        f"train.yaml is a configuration of {name}, which is recognized and not judged"
    ]
    assert (bool(outcome.ran), outcome.violations) == (name == "LitGPT", ())  # what it refuses is known


@pytest.mark.parametrize("package", ["xtuner", "diffusers", "llamafactory", "litgpt", "torchtune"])
def test_a_script_of_a_package_that_is_not_judged_says_so(package):
    text = f"from {package} import train\nfrom transformers import BitsAndBytesConfig\n"
    text += "train(BitsAndBytesConfig(load_in_4bit=True))\n"
    outcome, _ = run(all_rules(), document(text).facts, TrainingContext())

    assert [skip.reason for skip in outcome.skips if package in skip.reason] == [
        f"train.py uses {package}, which loads or trains models in its own way: that part is not judged"
    ]


@pytest.mark.parametrize(
    ("program", "given", "meant"),
    [
        ("axolotl", ["load_in_4bits"], {"load_in_4bits": "load_in_4bit"}),
        ("axolotl", ["load_in_4bits", "load_in_4bit"], {}),
        ("axolotl", ["my_own_key", "load_in_4bit"], {}),
        ("llamafactory", ["quantization_bits", "gradient_checkpoint"], {
            "quantization_bits": "quantization_bit", "gradient_checkpoint": "gradient_checkpointing",
        }),
        ("web", ["load_in_4bits"], {}),
    ],
)  # fmt: skip
def test_a_misspelt_key_is_told_from_a_key_of_another_version(program, given, meant):
    assert meant_keys(program, given) == meant


def test_the_keys_of_trl_are_those_of_its_installed_classes():
    trl = pytest.importorskip("trl", minversion="1.16")
    transformers = pytest.importorskip("transformers", minversion="5.23")
    classes = [getattr(trl, name) for name in ("SFTConfig", "DPOConfig", "ModelConfig", "ScriptArguments")]
    fields = {field.name for cls in (*classes, transformers.Seq2SeqTrainingArguments) for field in dataclasses.fields(cls)}

    assert fields - accepted("trl") == set()
    assert "predict_with_generate" in accepted("llamafactory")


@pytest.mark.skipif(importlib.util.find_spec("axolotl") is None, reason="axolotl is not installed")
def test_the_keys_of_axolotl_are_those_of_its_installed_schema():
    folder = importlib.util.find_spec("axolotl.utils.schemas").submodule_search_locations[0]
    tree = ast.parse(importlib.util.find_spec("axolotl.utils.schemas.peft").loader.get_source("axolotl.utils.schemas.peft"))
    names = {item.target.id for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "LoraConfig"
             for item in node.body if isinstance(item, ast.AnnAssign)}  # fmt: skip

    assert folder
    assert names - accepted("axolotl") == set()
