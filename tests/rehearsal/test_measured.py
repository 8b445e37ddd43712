"""A script's training is measured as it is reached, and ``fit --fix`` writes what makes it fit into the script."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import rehearsal_scripts as scripts
import tiny

import kbitlint
from kbitlint import api
from kbitlint.audit.keywords import FitKeywords, Keywords, MemoryKeywords
from kbitlint.fit_result import Owner
from kbitlint.fixes.changes import options_of
from kbitlint.fixes.script_settings import NAMES, writable
from kbitlint.source import documents

SCRIPT = """
import torch
import transformers
from datasets import load_dataset
from peft import LoraConfig, get_peft_model

bnb = transformers.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
model = transformers.AutoModelForCausalLM.from_pretrained("tiny-llama", quantization_config=bnb, device_map={"": "cpu"})
tokenizer = transformers.AutoTokenizer.from_pretrained("tiny-llama")
model = get_peft_model(model, LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"))
data = load_dataset("json", data_files="data.jsonl")["train"]
data = data.map(lambda row: tokenizer(row["text"], padding="max_length", max_length=128), remove_columns=data.column_names)
trainer = transformers.Trainer(
    model=model,
    train_dataset=data,
    args=transformers.TrainingArguments(
        output_dir="outputs", per_device_train_batch_size=8, max_steps=2, report_to=[], use_cpu=True,
    ),
    data_collator=transformers.DataCollatorForLanguageModeling(tokenizer, mlm=False),
)
trainer.train()
trainer.save_model("outputs/final")
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    place = tmp_path / "project"
    place.mkdir()
    scripts.project(place)
    monkeypatch.chdir(place)
    (place / "train.py").write_text(SCRIPT)
    return place


def answer(result):
    assert result.exit_code in (0, 1), result.output
    return json.loads(result.stdout)


@pytest.mark.usefixtures("forked")
def test_the_changes_that_make_it_fit_are_written_and_the_script_then_fits_and_trains(run, project):
    asked = answer(run("fit", "train.py", "--gpu", "80GB", "--format", "json"))
    gpu = str(asked["memory"]["on_card"] - 6_000_000)
    before = run("fit", "train.py", "--gpu", gpu)
    unchanged = Path("train.py").read_text()
    fixed = run("fit", "train.py", "--gpu", gpu, "--fix", "--format", "json")
    told = answer(fixed)
    after = run("fit", "train.py", "--gpu", gpu)

    assert (asked["asked"]["batch"], asked["asked"]["seq_len"], asked["asked"]["mode"]) == (8, 128, "no checkpointing")
    assert (before.exit_code, fixed.exit_code, after.exit_code) == (1, 0, 0)
    assert unchanged == SCRIPT
    assert told["written"]["file"] == "train.py"
    assert told["memory"]["on_card"] <= int(gpu) < asked["memory"]["on_card"]
    assert told["written"]["changes"] != []
    changed = Path("train.py").read_text()
    lines = [line for line in changed.splitlines() if line not in SCRIPT.splitlines()]
    assert [line.strip().partition("=")[0] for line in lines] != []
    assert len(lines) + len(set(changed.splitlines()) & set(SCRIPT.splitlines())) == len(set(changed.splitlines()))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    real = subprocess.run([sys.executable, "train.py"], env=environment, capture_output=True, text=True, check=False)
    assert real.returncode == 0, real.stderr[-2000:]


def loading(opened):
    """Return the script with its training arguments from args.json, which is written."""
    settings = {"output_dir": "outputs", "per_device_train_batch_size": 8, "max_steps": 2, "report_to": [], "use_cpu": True}
    Path("args.json").write_text(json.dumps(settings))
    call = SCRIPT[SCRIPT.index("transformers.TrainingArguments(") : SCRIPT.index("    data_collator=")]
    text = SCRIPT.replace(call, f"transformers.TrainingArguments(**json.load({opened})),\n")
    return text.replace("import torch", "import json\nimport pathlib\n\nimport torch")


@pytest.mark.usefixtures("forked")
@pytest.mark.slow
def test_nothing_is_written_where_no_setting_of_the_script_makes_it_fit(run, project):
    text = loading('next(pathlib.Path().glob("args.*")).open()')
    Path("train.py").write_text(text)
    refused = run("fit", "train.py", "--gpu", "252MB", "--fix")  # it needs 257 MB

    assert refused.exit_code == 1
    assert "nothing was written: train.py takes no setting for" in " ".join(refused.stdout.split())
    assert Path("train.py").read_text() == text


@pytest.mark.usefixtures("forked")
@pytest.mark.slow
def test_a_setting_of_a_file_stays_and_another_one_is_written(run, project):
    text = loading('open("args.json")')
    Path("train.py").write_text(text)
    settings = Path("args.json").read_text()
    fitted = run("fit", "train.py", "--gpu", "252MB", "--fix")

    assert fitted.exit_code == 0
    assert "gradient_checkpointing=True" in Path("train.py").read_text()
    assert Path("args.json").read_text() == settings


@pytest.mark.usefixtures("forked")
def test_a_script_without_a_training_is_one_line(run, project):
    Path("train.py").write_text(SCRIPT.replace("trainer.train()", "raise SystemExit('no')"))
    for command in (("fit", "train.py", "--gpu", "24GB"), ("memory", "train.py")):
        wrong = run(*command)

        assert (wrong.exit_code, wrong.stdout, wrong.stderr.count("\n")) == (2, "", 1)
        assert wrong.stderr.startswith("kbitlint: train.py: reaches no training")


def test_only_scripts_are_fixed(run):
    wrong = run("fit", tiny.checkpoint(), "--quantize", "nf4", "--gpu", "24GB", "--fix")

    assert (wrong.exit_code, wrong.stdout) == (2, "")
    assert "is no script: --fix changes the settings of scripts and notebooks" in wrong.stderr


GIVEN = {"per_device_train_batch_size"}
ARGUMENTS = {name for owner, name in NAMES if owner is Owner.ARGUMENTS}


@pytest.mark.parametrize(
    ("old", "new", "left_out"),
    [
        ("", "", {"max_length", "r"}),
        ("TrainingArguments(", "TrainingArguments(**more, ", {*ARGUMENTS - GIVEN, "r"}),
        ("TrainingArguments(", 'TrainingArguments(**more, optim="sgd", ', {*ARGUMENTS - GIVEN - {"optim"}, "r"}),
        (
            "quantization_config=bnb",
            "quantization_config=chosen()",
            {"max_length", "r", "bnb_4bit_use_double_quant", "bnb_4bit_quant_storage"},
        ),
    ],
)
def test_a_setting_is_writable_where_one_call_takes_it(old, new, left_out, tmp_path):
    file = tmp_path / "train.py"
    file.write_text(SCRIPT.replace(old, new) if old else SCRIPT)

    assert {name for _, name in NAMES} - {name for _, name in writable(documents.read(file).facts, unsafe=False)} == left_out


def test_unsafe_settings_are_writable_where_they_are_asked_for(tmp_path):
    file = tmp_path / "train.py"
    file.write_text(
        SCRIPT.replace("transformers.TrainingArguments", "trl.SFTConfig").replace("import torch", "import torch, trl")
    )

    assert writable(documents.read(file).facts, unsafe=True) == frozenset(NAMES)


def test_every_setting_of_a_change_has_its_name_in_the_list():
    from kbitlint.context import TrainingContext
    from kbitlint.fit_result import Setup
    from kbitlint.fixes.lora import parse_lora
    from kbitlint.fixes.meter import Meter
    from kbitlint.memory_result import OFF
    from kbitlint.step_plan import StepPlan
    from kbitlint.upstream import cards

    model = tiny.load()
    meter = Meter(model, TrainingContext(autocast_dtype="float32"), cards.find("24GB"), 2, parse_lora("r=16"))
    meter.saved_by_double = 1
    setup = Setup(StepPlan(every=2), 8, 512, OFF, 16, strategy="fsdp2")
    settings = {(one.owner, one.name) for group in options_of(setup, meter) for option in group for one in option.settings}

    assert settings == set(NAMES)


@pytest.mark.usefixtures("forked")
def test_a_script_fits_and_is_measured_from_python_as_on_the_command_line(run, project):
    text = SCRIPT.replace("import torch", "import sys\nimport torch", 1).replace(
        "train_batch_size=8", "train_batch_size=int(sys.argv[1])"
    )
    Path("train.py").write_text(text)
    told = answer(run("fit", "train.py", "--gpu", "24GB", "--format", "json", "--", "4"))
    found = kbitlint.fit("train.py", argv=["4"], gpu="24GB")
    whole = kbitlint.memory("python train.py 2")

    assert json.loads(found.to_json()) == told
    assert (found.asked.batch, whole.batch[0]) == (4, 2)
    with pytest.raises(kbitlint.KbitlintError, match=r"^train\.py: argv is a list of words, such as \['4', 'x'\]$"):
        kbitlint.fit("train.py", argv="4 x", gpu="24GB")
    with pytest.raises(kbitlint.KbitlintError, match="takes no arguments: argv is for scripts"):
        kbitlint.memory(tiny.load(), argv=["4"])
    with pytest.raises(kbitlint.KbitlintError, match="is no script: --fix changes the settings of scripts"):
        kbitlint.fit(tiny.checkpoint(), gpu="24GB", fix=True)
    with pytest.raises(TypeError, match="gpu"):
        kbitlint.fit("train.py", argv=["4"])
    with pytest.raises(TypeError, match="unknown argument 'quantise'"):
        kbitlint.fit("train.py", argv=["4"], gpu="24GB", quantise="nf4")
    with pytest.raises(kbitlint.KbitlintError, match="--gpu 4091: neither a size such as 24GB nor a known card"):
        kbitlint.fit("train.py", argv=["4"], gpu="4091")


def test_the_keywords_of_fit_and_memory_are_those_of_their_functions():
    known = set(Keywords.__annotations__)
    for base, keywords in ((api.fit, FitKeywords), (api.memory, MemoryKeywords)):
        names = {name for name, item in inspect.signature(base).parameters.items() if item.kind is item.KEYWORD_ONLY}

        assert set(keywords.__annotations__) | known == names | known
