"""Training configurations: which program reads them, what they say, and how their keys are repaired in place."""

from __future__ import annotations

import pytest
from script_cases import NEWEST, fixed_text, flagged_lines

from kbitlint.api import check, fix
from kbitlint.audit.scripts import run
from kbitlint.context import TrainingContext
from kbitlint.registry import find
from kbitlint.source import documents
from kbitlint.source.configs import collect as configs

AXOLOTL = """\
base_model: a/b   # the base
load_in_4bit: true
adapter: qlora
micro_batch_size: 2

# the end
"""
TRL = """\
{
  "model_name_or_path": "Qwen/Qwen2.5-7B",
  "load_in_4bit": true,
  "use_peft": true,
  "gradient_checkpointing_kwargs": {
    "use_reentrant": true,
    "preserve_rng_state": false
  }
}
"""


@pytest.mark.parametrize(
    ("text", "suffix", "dialect"),
    [
        (AXOLOTL, ".yaml", "axolotl"),
        (TRL, ".json", "trl"),
        ("stage: sft\nfinetuning_type: lora\ntemplate: llama3\n", ".yaml", "llamafactory"),
        ("compute_environment: X\ndistributed_type: FSDP\nnum_processes: 8\n", ".yml", None),
        ('{"zero_optimization": {"stage": 2}, "optimizer": {}}', ".json", None),
        ("name: web\nload_in_4bit: true\n", ".yaml", None),
        ("", ".yaml", None),
        ("- load_in_4bit\n", ".yaml", None),
        ("[1]", ".json", None),
    ],
)
def test_a_program_is_known_by_its_keys(text, suffix, dialect):
    facts = configs.collect(f"f{suffix}", text, suffix, NEWEST)

    assert (facts and facts.dialect) == dialect


def test_a_key_that_is_missing_is_added_after_the_last(tmp_path):
    assert flagged_lines("KB402", AXOLOTL, suffix=".yaml") == [("warning", "base_model: a/b   # the base")]
    assert fixed_text("KB402", AXOLOTL, tmp_path, suffix=".yaml") == AXOLOTL.replace(
        "micro_batch_size: 2\n", "micro_batch_size: 2\ngradient_checkpointing: true\n"
    )


def test_a_key_of_json_is_changed_in_place(tmp_path):
    assert flagged_lines("KB401", TRL, suffix=".json") == [("info", '"gradient_checkpointing_kwargs": {')]
    assert fixed_text("KB401", TRL, tmp_path, suffix=".json") == TRL.replace('"use_reentrant": true', '"use_reentrant": false')


@pytest.mark.parametrize(
    ("kwargs", "after"),
    [
        ("{}", '{"use_reentrant": false}'),
        ("{preserve_rng_state: true}", '{preserve_rng_state: true, "use_reentrant": false}'),
        ("\n    preserve_rng_state: true", "\n    preserve_rng_state: true\n    use_reentrant: false"),
    ],
)
def test_an_item_is_added_as_the_others_are_written(tmp_path, kwargs, after):
    text = f"{AXOLOTL}gradient_checkpointing: true\ngradient_checkpointing_kwargs: {kwargs}\n"
    found = flagged_lines("KB401", text, suffix=".yaml")

    assert len(found) == (0 if kwargs == "{}" else 1)  # an empty dict is Trainer's own default
    if found:
        assert fixed_text("KB401", text, tmp_path, suffix=".yaml") == text.replace(f"kwargs: {kwargs}", f"kwargs: {after}")


def test_fsdp_and_the_arguments_may_both_checkpoint(tmp_path):
    text = f"{AXOLOTL}gradient_checkpointing: true\nfsdp: [full_shard]\nfsdp_config:\n  activation_checkpointing: true\n"

    assert len(flagged_lines("KB724", text, suffix=".yaml")) == 1
    assert "gradient_checkpointing: false\n" in fixed_text("KB724", text, tmp_path, suffix=".yaml")


@pytest.mark.parametrize(
    ("bits", "kind", "found"),
    [(4, "lora", 0), (4, "full", 1), (8, "freeze", 1), (4, "oft", 0), ("auto", "full", 0)],
)
def test_llamafactory_quantizes_for_adapters_only(bits, kind, found):
    text = f"model_name_or_path: a/b\nstage: sft\ntemplate: x\nquantization_bit: {bits}\nfinetuning_type: {kind}\n"

    assert len(flagged_lines("KB220", text, suffix=".yaml")) == found


def test_comments_silence_keys_too():
    comment = "# kbitlint: ignore[KB401]\n"
    text = f"{AXOLOTL}gradient_checkpointing: true\n{comment}gradient_checkpointing_kwargs:\n  use_reentrant: true\n"

    assert flagged_lines("KB401", text, suffix=".yaml") == []


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ('tokens:\n  - "<|im_start|>"\n', [("warning", 8)]),
        ('tokens:\n  - "<|im_start|>"\nlora_modules_to_save: [embed_tokens, lm_head]\n', []),
        ("tokens: []\n", []),
        ('special_tokens:\n  pad_token: "<|end_of_text|>"\n', []),
    ],
)
def test_axolotl_adds_tokens_that_only_its_adapters_train(tmp_path, more, found):
    path = tmp_path / "train.yaml"
    path.write_text(AXOLOTL + "lora_target_linear: true\n" + more)

    said = check(str(path), select=["KB622"]).violations
    assert [(v.severity.value, v.at.line) for v in said] == found


LLAMAFACTORY = "stage: sft\nfinetuning_type: lora\ntemplate: llama3\nquantization_bit: 4\n"


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ("", [(1, "info")]),
        ("use_reentrant_gc: true\n", [(5, "info")]),
        ("use_reentrant_gc: false\n", []),
        ("use_reentrant_gc: 1\n", []),
        ("use_unsloth_gc: true\n", []),
        ("disable_gradient_checkpointing: true\n", []),
    ],
)
def test_llamafactory_checkpoints_reentrantly_unless_it_is_told_otherwise(tmp_path, more, found):
    path = tmp_path / "train.yaml"
    path.write_text(LLAMAFACTORY + more)

    said = check(str(path), select=["KB301", "KB401"]).violations
    assert [(v.at.line, v.severity.value) for v in said] == found

    fix(str(path), select=["KB401"])
    expected = LLAMAFACTORY + more.replace("gc: true", "gc: false") + ("use_reentrant_gc: false\n" if not more else "")
    assert path.read_text() == (expected if found else LLAMAFACTORY + more)


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("tune run lora_finetune_single_device --config llama3/8B_qlora_single_device", "torchtune"),
        ("autotrain llm --train --use-peft --quantization int4", "AutoTrain"),
        ("xtuner train llama3_8b_qlora.py --deepspeed zero2", "xtuner"),
        ("ludwig train --config model.yaml  # 4bit", "Ludwig"),
        ("litgpt finetune_lora org/base --quantize bnb.nf4", "LitGPT"),
        ("python -m openrlhf.cli.train_sft --load_in_4bit", "OpenRLHF"),
        ("python -m verl.trainer.main_ppo quantization=nf4", "verl"),
    ],
)
def test_a_launch_of_a_program_that_is_not_judged_is_a_skip_with_its_name(tmp_path, command, name):
    path = tmp_path / "run.sh"
    path.write_text(f"#!/bin/bash\n{command} \n")

    read = documents.read(path, path.name)

    assert read.facts.unfollowed == f"launches {name}, which is recognized and not judged"


@pytest.mark.parametrize(
    ("suffix", "text", "wrong"),
    [
        (".sh", "litgpt finetune_lora org/base --quantize bnb.nf4 --precision bf16-true\n", ("bf16-true", "bf16-mixed")),
        (".sh", "litgpt finetune org/base --quantize bnb.nf4 --devices 1\n", ("devices 1", "devices 2")),
        (".sh", "litgpt finetune_lora org/base --quantize bnb.nf4\n", ("_lora", "_full")),
        (".yaml", "checkpoint_dir: base\nprecision: bf16-true\nquantize: bnb.nf4\ndevices: 1\n", ("devices: 1", "devices: 4")),
    ],
)
def test_what_litgpt_refuses_of_a_quantized_training_is_found_beside_the_skip(tmp_path, suffix, text, wrong):
    path = tmp_path / f"run{suffix}"
    found = []
    for content in (text, text.replace(*wrong)):
        path.write_text(content)
        report = check(str(path))
        found.append(([(one.code, one.severity.value) for one in report.violations], bool(report.skips)))

    assert found == [([], True), ([("KB535", "error")], True)]


@pytest.mark.parametrize(
    ("command", "wrong"),
    [
        ("dpo --loss_type ipo", ("ipo", "kto_pair")),
        ("grpo --per_device_train_batch_size 8 --num_generations 8", ("size 8", "size 2")),
    ],
)
def test_a_command_of_trl_is_held_against_its_own_trainer(tmp_path, command, wrong):
    text = f"trl {command} --model_name_or_path Qwen/Qwen2.5-7B --load_in_4bit --use_peft --dataset_name d --output_dir o\n"
    found = []
    for content in (text, text.replace(*wrong)):
        path = tmp_path / "run.sh"
        path.write_text(content)
        found.append([one.code for one in check(str(path)).violations])

    assert found == [[], ["KB535"]]


def test_an_export_of_llama_factory_refuses_a_quantized_base(tmp_path):
    path = tmp_path / "merge.yaml"
    head = (
        "model_name_or_path: org/base\nadapter_name_or_path: out\ntemplate: llama3\nfinetuning_type: lora\nexport_dir: merged\n"
    )
    message = "llamafactory raises a ValueError: Cannot merge adapters to a quantized model"

    for text, expected in ((head, []), (f"{head}quantization_bit: 4\n", [message])):
        path.write_text(text)
        read = documents.read(path, path.name)
        found = run((find("KB535"),), read.facts, TrainingContext())[0].violations if read is not None else ()
        assert [violation.message for violation in found] == expected


def test_an_export_is_recognised_without_the_keys_of_a_training(tmp_path):
    path = tmp_path / "merge.yaml"
    head = "model_name_or_path: org/base\nadapter_name_or_path: out\ntemplate: llama3\nexport_dir: merged\nexport_size: 5\n"

    for text in ("quantization_bit: 4\n", "export_quantization_bit: 4\nexport_quantization_dataset: d.json\n"):
        path.write_text(head + text)
        assert [one.code for one in check(str(path)).violations] == ["KB535"]
