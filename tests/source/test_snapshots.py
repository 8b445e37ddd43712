"""A path that starts from a snapshot finds what it finds when it follows the whole file."""

from __future__ import annotations

from pathlib import Path

import pytest

from kbitlint.limits import Limits, held_to
from kbitlint.source import documents
from kbitlint.source.interpreter import snapshots
from kbitlint.source.interpreter.snapshots import Snapshots

SCRIPTS = sorted((Path(__file__).parents[1] / "data" / "scripts").rglob("*.py"))
#: a head that takes many steps, then questions in flat code, in functions that nothing calls, and in methods
HEAD = "import torch\nfrom transformers import *\nfrom peft import *\nimport sys\n" + "".join(
    f"DEFAULTS_{number} = {{'r': {number}, 'list': ['q_proj', 'v_proj', 'k_proj']}}\n" for number in range(150)
)
BODY = """
shared = dict(DEFAULTS_1)
nested = shared
for _ in range(3):
    nested = {"inner": nested}
config = LoraConfig(**shared)
model = AutoModelForCausalLM.from_pretrained("m", quantization_config=BitsAndBytesConfig(load_in_4bit=True))
args = TrainingArguments("out", bf16=True)
if len(sys.argv) > 1:
    model = prepare_model_for_kbit_training(model)
    shared["r"] = 4
if len(sys.argv) > 2:
    model = get_peft_model(model, config)
    args.gradient_checkpointing = True
base = model
if len(sys.argv) > 3:
    base.gradient_checkpointing_enable()
trainer = Trainer(model, args)
def build(prepared=False, attach=False):
    net = AutoModelForCausalLM.from_pretrained("n", load_in_8bit=True)
    if prepared:
        net = prepare_model_for_kbit_training(net)
    return get_peft_model(net, config) if attach else net
class Run:
    def __init__(self, flag):
        self.net = AutoModelForCausalLM.from_pretrained("o", load_in_4bit=True)
        self.flag = flag
    def prepare(self):
        if self.flag:
            self.net = prepare_model_for_kbit_training(self.net)
    def train(self):
        if not self.flag:
            self.net.gradient_checkpointing_enable()
        Trainer(self.net, args).train()
trainer.train()
"""


def facts(path, *, limits, taken=None, monkeypatch=None):
    with held_to(limits), monkeypatch.context() as patch:
        if taken is None:
            patch.setattr(Snapshots, "take", lambda *_: False)
        else:
            patch.setattr(snapshots, "_WORTH", 0)
            resume = Snapshots.resume
            patch.setattr(Snapshots, "resume", lambda self, new: taken.append(resume(self, new)) or taken[-1])
        return documents.read(path, path.name).facts


@pytest.mark.parametrize("steps", [120_000, 30_000, 6_000])
def test_questions_at_every_stage_are_answered_as_in_full(steps, tmp_path, monkeypatch):
    path, taken = tmp_path / "train.py", []
    path.write_text(HEAD + BODY)
    limits = Limits(max_steps=steps)

    found = facts(path, limits=limits, taken=taken, monkeypatch=monkeypatch)

    assert found == facts(path, limits=limits, monkeypatch=monkeypatch)
    assert len(found.paths) > (steps > 6_000)
    assert sum(start > 1_000 for start in taken) >= len(taken) // 2 * (steps > 6_000)


def test_scripts_as_people_write_them_are_followed_as_in_full(monkeypatch):
    taken, different = [], []
    for path in SCRIPTS:
        found = facts(path, limits=Limits(), taken=taken, monkeypatch=monkeypatch)
        if found != facts(path, limits=Limits(), monkeypatch=monkeypatch):
            different.append(path)

    assert not different
    assert len(SCRIPTS) > 50
    assert sum(start > 0 for start in taken) >= 20


def test_a_state_that_is_too_large_is_followed_in_full(tmp_path, monkeypatch):
    path, taken = tmp_path / "train.py", []
    path.write_text(HEAD + BODY)
    monkeypatch.setattr(snapshots, "_MOST", 10)

    found = facts(path, limits=Limits(), taken=taken, monkeypatch=monkeypatch)

    assert set(taken) == {0}
    assert found == facts(path, limits=Limits(), monkeypatch=monkeypatch)
