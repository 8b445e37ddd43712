"""TRL's behaviour by version: the newest row against the installed package, and scripts that pin a version."""

from __future__ import annotations

import inspect

import pytest
import trl
from script_cases import IMPORTS, LOADED, document
from trl.trainer import sft_trainer

from kbitlint.audit.scripts import run
from kbitlint.context import TrainingContext
from kbitlint.registry import all_rules
from kbitlint.upstream.trl_versions import BEHAVIORS, behavior
from kbitlint.upstream.versions import NEWEST, installed, number

PEFT = "peft_config=LoraConfig(r=8)"
ARGUMENTS = "args = TrainingArguments('out', fp16=True)\n"


def test_rows_are_ordered_and_the_oldest_holds_for_all_that_is_older():
    since = [number(row.since) for row in BEHAVIORS]

    assert since == sorted(since, reverse=True)
    assert behavior({"trl": "0.4.7"}) is BEHAVIORS[-1]
    assert behavior({}) is BEHAVIORS[0]


def test_the_newest_row_is_what_the_installed_trl_does():
    row, source = behavior(installed()), inspect.getsource(sft_trainer.SFTTrainer.__init__)
    arguments = trl.SFTConfig("out", use_cpu=True)

    assert (row.prepares == "") == ("prepare_model_for_kbit_training" not in source)
    assert (row.casts == "always") == ("if _is_quantized_model:" in source and "param.data.to(torch.bfloat16)" in source)
    assert (row.second == "refused") == ("You passed a `PeftModel` instance together with a `peft_config`" in source)
    assert row.loads == ("quantization_config" in inspect.signature(sft_trainer.SFTTrainer.__init__).parameters)
    assert (row.checkpointing, row.bf16) == (arguments.gradient_checkpointing, arguments.bf16)


def codes(script, trl_version):
    read = document(
        IMPORTS + script.replace(" dtype=", " torch_dtype="),
        versions={**NEWEST, "trl": trl_version, "transformers": "4.45.0", "peft": "0.10.0"},
    )
    return sorted(v.code for v in run(all_rules(), read.facts, TrainingContext())[0].violations)


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("0.4.7", ["KB401"]),  # it prepares the model and switches reentrant checkpointing on; it casts no adapters
        ("0.7.2", ["KB402"]),  # it prepares as the arguments ask
        ("0.9.6", ["KB402"]),
        ("0.24.0", ["KB402"]),  # it casts for bf16 only
        ("0.27.0", ["KB120", "KB402"]),
    ],
)
def test_a_trainer_of_a_pinned_version_does_what_that_version_does(version, expected):
    script = LOADED + ARGUMENTS + f"SFTTrainer(model=model, args=args, train_dataset=data, {PEFT}).train()\n"

    assert codes(script, version) == expected


@pytest.mark.parametrize(("version", "expected"), [("0.9.6", ["KB401"]), ("0.24.0", ["KB401"])])
def test_a_preparation_inside_the_trainer_leaves_reentry_to_torch(version, expected):
    arguments = ARGUMENTS.replace("fp16", "gradient_checkpointing=True, bf16")
    script = LOADED + arguments + f"SFTTrainer(model=model, args=args, train_dataset=data, {PEFT}).train()\n"

    assert codes(script, version) == expected
    asked = script.replace(
        "gradient_checkpointing=True", "gradient_checkpointing=True, gradient_checkpointing_kwargs={'use_reentrant': False}"
    )
    assert codes(asked, version) == []


@pytest.mark.skipif(number(installed()["trl"]) < (1, 0), reason="the trainers were not experimental yet")
@pytest.mark.parametrize("name", ["ORPOTrainer", "CPOTrainer"])
def test_a_trainer_that_prepares_still_does_so_in_the_installed_trl(name):
    from importlib import import_module

    trainer = getattr(import_module(f"trl.experimental.{name.removesuffix('Trainer').lower()}"), name)
    row, source = behavior(installed(), f"trl.{name}"), inspect.getsource(trainer.__init__)

    assert "prepare_model_for_kbit_training(" in source
    assert "if args.bf16 and" in source
    assert (row.prepares, row.casts, row.passes_kwargs) == ("asked", "bf16", True)
