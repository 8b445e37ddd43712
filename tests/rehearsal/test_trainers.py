"""Trainers that generate: their rehearsed scripts reach the training, and call the user's reward functions before."""

from __future__ import annotations

import pytest
import trl_trainers

import kbitlint
from benchmarks.truth import trainer_scripts

pytestmark = pytest.mark.usefixtures("forked")
#: trainers whose step generates text, or may
GENERATING = (
    *("GRPOTrainer", "RLOOTrainer", "DistillationTrainer", "GKDTrainer", "GOLDTrainer", "IWOPDTrainer", "OnlineDPOTrainer"),
    *("SDFTTrainer", "SDPOTrainer", "GMPOTrainer", "A2POTrainer"),
)


def rehearsed(folder, monkeypatch, code=None):
    if code is not None:
        (folder / "train.py").write_text(code)
    monkeypatch.chdir(folder)
    return kbitlint.rehearse("train.py", (), timeout=300)


def raised(reports):
    found = [one for report in reports for one in report.violations if "raised" in one.evidence]
    return [(one.code, one.at.line, one.evidence["raised"]) for one in found]


def test_every_trainer_that_generates_is_named_here():
    asked = {"reward_funcs", "teacher_model"}
    known = {name for name, (_, arguments, _) in trl_trainers.RECIPES.items() if asked & set(arguments)}

    assert known | {"SDFTTrainer"} == set(GENERATING)


@pytest.mark.parametrize("name", GENERATING)
def test_the_script_of_a_trainer_that_generates_reaches_its_training(name, tmp_path, monkeypatch):
    script = trainer_scripts.place(name, tmp_path, "llama")
    line = script.read_text().splitlines().index("trainer.train()") + 1

    reports = rehearsed(tmp_path, monkeypatch)

    assert raised(reports) == []
    assert [note for note in reports[0].notes if "reached" in note] == [f"training reached at line {line}"]
    assert [skip.reason for report in reports for skip in report.skips if not skip.code] == []
    assert [report.crashes for report in reports] == [()] * len(reports)


@pytest.mark.parametrize("name", ["GRPOTrainer", "OnlineDPOTrainer", "A2POTrainer"])
def test_a_reward_function_that_wants_a_column_that_is_not_there_is_a_fault(name, tmp_path, monkeypatch):
    script = trainer_scripts.place(name, tmp_path, "llama")
    code = script.read_text().replace("def reward(completions, **_):", "def reward(completions, solution, **_):")
    assert "solution" in code

    reports = rehearsed(tmp_path, monkeypatch, code)

    line = code.splitlines().index("trainer.train()") + 1
    missing = "TypeError: reward() missing 1 required positional argument: 'solution'"
    assert raised(reports) == [("KB901", line, missing)]


LOADED = """
import torch
from peft import LoraConfig, VeraConfig, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)
model = AutoModelForCausalLM.from_pretrained("base", quantization_config=quantization, device_map={"": "cpu"})
get_peft_model(model, ADAPTER).save_pretrained("adapter")
for name in ("adapter",):
    again = CLASS.from_pretrained("adapter", quantization_config=quantization, device_map={"": "cpu"})
names = sorted(name for name, _ in again.named_parameters() if "lora" in name)
trained = [name for name, p in again.named_parameters() if p.requires_grad]
raise NotImplementedError(f"{len(names)} {names[0]} {len(trained)} {again.training} {again.active_adapters()}")
"""


@pytest.mark.parametrize("cls", ["AutoModelForCausalLM", "__import__('transformers').LlamaForCausalLM"])
@pytest.mark.parametrize(
    ("adapter", "kind"),
    [("LoraConfig(target_modules=['q_proj'])", "NotImplementedError"), ("VeraConfig(target_modules=['q_proj'])", "ValueError")],
)
def test_the_adapters_of_a_folder_are_attached_as_in_a_real_load(cls, adapter, kind, tmp_path, monkeypatch, capfd):
    trainer_scripts.place("SFTTrainer", tmp_path, "llama")
    code = LOADED.replace("ADAPTER", adapter).replace("CLASS", cls)

    reports = rehearsed(tmp_path, monkeypatch, code)

    with pytest.raises(Exception) as real:  # noqa: PT011  # whichever the libraries raise
        exec(compile(code, "train.py", "exec"), {"__name__": "real"})  # noqa: S102  # the real run
    assert type(real.value).__name__ == kind
    ((_, _, text),) = raised(reports)
    assert text.partition(": ")[0] == kind
    assert " ".join(text.split()) == f"{kind}: {' '.join(str(real.value).split())}"
