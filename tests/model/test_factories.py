"""Factories: called as they are, or without weights under --meta; Trainers; what they may do wrong."""

from __future__ import annotations

import json
import textwrap

import pytest
import tiny
import torch

import kbitlint

FACTORY = """
import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

def build_model():
    quantization = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
    model = AutoModelForCausalLM.from_pretrained(
        {folder!r}, quantization_config=quantization, device_map={{"": torch.cuda.current_device()}}, dtype=torch.bfloat16)
    model = prepare_model_for_kbit_training(model)
    return get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "train.py"
    path.write_text(textwrap.dedent(FACTORY.format(folder=str(tiny.checkpoint()))))
    return path


def only(result):
    (target,) = json.loads(result.stdout)["targets"]
    return target


def test_meta_runs_the_users_factory_without_weights_and_without_cuda(run, script):
    target = only(run("check", f"{script}:build_model", "--meta", "--format", "json"))

    shown = {(v["code"], v["at"]["path"]) for v in target["violations"]}
    reentrant = {("KB401", f"model.layers.{layer}") for layer in (0, 1)}
    asleep = {("KB403", f"model.layers.{layer}") for layer in (0, 1)}
    stacked = {("KB302", "model.embed_tokens")} if tiny.TRANSFORMERS_5 else set()  # transformers 4 adds no second hook
    # PEFT's prepare makes embeddings and head float32, and the stream with them
    wide = {("KB103", "model.embed_tokens"), ("KB104", "model.embed_tokens.weight"), ("KB104", "lm_head.weight")}
    assert shown == reentrant | asleep | stacked | wide | {("KB404", "config")}
    assert (target["weights_read"], target["notes"]) == (False, ["built on meta"])
    assert target["summary"] == "LlamaForCausalLM 106.8K, bitsandbytes nf4 on 14 layers, LoRA r=4 on 14 layers"


def test_meta_reads_no_weights_at_all(run, script, tmp_path):
    import shutil

    folder = shutil.copytree(tiny.checkpoint(), tmp_path / "config-only")
    for weights in folder.glob("*.safetensors"):
        weights.unlink()
    script.write_text(FACTORY.format(folder=str(folder)))

    assert run("check", f"{script}:build_model", "--meta").exit_code == 1


def test_meta_gives_from_pretrained_back():
    from transformers import PreTrainedModel

    before = PreTrainedModel.__dict__["from_pretrained"]
    with pytest.raises(kbitlint.KbitlintError):
        kbitlint.check("plants:raises", meta=True)

    assert PreTrainedModel.__dict__["from_pretrained"] is before


def test_meta_shows_the_error_that_a_removed_keyword_raises_in_a_real_load(run, tmp_path):
    path = tmp_path / "old.py"
    path.write_text(
        f"from transformers import LlamaForCausalLM\ndef build():\n"
        f"    return LlamaForCausalLM.from_pretrained({str(tiny.checkpoint())!r}, load_in_4bit=True)\n"
    )

    result = run("check", f"{path}:build", "--meta")

    expected = ("unexpected keyword argument 'load_in_4bit'", 2) if tiny.TRANSFORMERS_5 else ("", 1)  # 4 still takes it
    assert expected[0] in result.stderr
    assert result.exit_code == expected[1]


def test_the_lines_to_add_are_printed_for_a_factory(run):
    result = run("--fix", "plants:unprepared", "--device", "cpu")

    assert result.exit_code == 0, result.output
    assert "to make it last, add to the factory:\n    import kbitlint\n    kbitlint.fix(model)" in result.output


def test_a_factory_can_be_fixed_without_weights(run, script):
    target = only(run("--fix", f"{script}:build_model", "--meta", "--format", "json"))

    left = {violation["code"] for violation in target["violations"]}
    assert left == {"KB103", "KB104"}  # what PEFT's prepare made float32 comes back with --unsafe-fixes only
    assert target["fixed"]["probe"] is None
    assert target["fixed"]["lines_to_add"][0] == "import kbitlint"


def test_fix_without_cuda_names_the_other_device(run, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    result = run("--fix", "plants:unprepared")

    expected = "kbitlint: --fix applies on CUDA and there is none here; --device cpu works everywhere\n"
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", expected)


def test_a_trainer_is_audited_as_it_will_train(run):
    """Its arguments enable checkpointing, and it calls model.train() itself.

    That of transformers 4 checkpoints reentrantly and installs no hook.
    """
    target = only(run("check", "plants:trainer", "--format", "json"))

    reentrant = {"KB301", "KB401"} if not tiny.TRANSFORMERS_5 else set()
    assert {v["code"] for v in target["violations"]} == {"KB101"} | reentrant
    assert {"code": "KB403", "reason": "the training loop sets the mode itself", "surface": "model"} in target["skips"]


def test_a_live_trainer_is_fixed_in_place():
    import plants

    trainer = plants.trainer()

    kbitlint.fix(trainer)

    assert "KB101" not in {violation.code for violation in kbitlint.check(trainer).violations}


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("returns_none", "the factory returned None; it must return a model or a Trainer"),
        ("returns_text", "the factory returned a str; it must return a model or a Trainer"),
        ("raises", "the factory raised ValueError: no data"),
        ("leaves", "the factory left the program with exit status 3"),
        ("unprepard", "has no function 'unprepard'; did you mean 'unprepared'?"),
        (
            "needs_cuda",
            (
                "the factory needs CUDA, and there is none here: run it where there is one, or with --meta, which needs none "
                "(RuntimeError: Torch not compiled with CUDA enabled)"
            ),
        ),
    ],
)
def test_each_way_a_factory_fails_is_one_line(run, monkeypatch, name, line):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    result = run("check", f"plants:{name}")

    assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"kbitlint: plants:{name}: {line}\n")


def test_verbose_shows_the_traceback(run):
    result = run("check", "plants:raises", "--verbose")

    assert (result.exit_code, "Traceback" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "import nothing_like_this\ndef build(): ...\n",
            "importing it raised ModuleNotFoundError: No module named 'nothing_like_this'",
        ),
        ("def build(:", "importing it raised SyntaxError: invalid syntax (broken.py, line 1)"),
        ("raise SystemExit(4)\ndef build(): ...\n", "importing it left the program with exit status 4"),
    ],
)
def test_a_file_that_cannot_be_imported_is_one_line(run, tmp_path, text, line):
    (tmp_path / "broken.py").write_text(text)

    result = run("check", "broken.py:build")

    assert (result.exit_code, result.stderr) == (2, f"kbitlint: broken.py:build: {line}\n")


def test_a_factory_may_import_what_stands_beside_it(run, tmp_path):
    (tmp_path / "part.py").write_text("import tiny\ndef made():\n    return tiny.prepared()\n")
    (tmp_path / "whole.py").write_text("from part import made\n")

    assert run("check", "whole.py:made").exit_code == 0


def test_a_missing_function_is_named_before_the_file_runs(run, tmp_path):
    path = tmp_path / "train.py"
    path.write_text("raise OSError('no network')\n\ndef build():\n    pass\n")

    result = run("check", f"{path}:bild")

    assert (result.exit_code, result.stderr) == (2, f"kbitlint: {path}:bild: has no function 'bild'; did you mean 'build'?\n")
    path.write_text("from other import *\nraise OSError('no network')\n")
    assert "importing it raised" in run("check", f"{path}:bild").stderr
