from __future__ import annotations

import pytest
import tiny
import torch
from safetensors.torch import load_file
from script_cases import ADAPTED, LOADED, PREPARED, findings

CODE = "KB652"
CLASS = """\
class Scorer(torch.nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder
        self.score = torch.nn.Linear(encoder.config.hidden_size, 1)
    def forward(self, input_ids):
        return self.score(self.encoder(input_ids).last_hidden_state.float())
"""
MADE = LOADED + PREPARED + ADAPTED + "scorer = Scorer(model)\n"
TRAIN = "Trainer(model=scorer, args=TrainingArguments('out', save_strategy='no'), train_dataset=data).train()\n"
LOOP = "for batch in loader:\n    loss = scorer(**batch).sum()\n    loss.backward()\n    optimizer.step()\n"
SAVE = "scorer.encoder.save_pretrained('out')\n"
TOLD = "only encoder is saved, and the trained score beside it is in no file"


@pytest.mark.parametrize("train", [TRAIN, LOOP])
def test_the_head_is_in_no_file(train):
    assert findings(CODE, CLASS + MADE + train + SAVE) == [("error", SAVE.strip(), TOLD)]


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(CLASS + MADE + LOOP + SAVE + "torch.save(scorer.score.state_dict(), 'out/score.pt')\n", id="saved"),
        pytest.param(CLASS + MADE + TRAIN.replace(", save_strategy='no'", "") + SAVE, id="checkpoints of Trainer"),
        pytest.param(CLASS + MADE + LOOP, id="nothing is saved"),
        pytest.param(CLASS + MADE + SAVE, id="nothing is trained"),
        pytest.param(CLASS.replace("Linear(encoder.config.hidden_size, 1)", "Dropout()") + MADE + LOOP + SAVE, id="no weights"),
        pytest.param(LOADED + ADAPTED + LOOP.replace("scorer", "model") + "model.save_pretrained('out')\n", id="no class"),
    ],
)
def test_look_alikes(script):
    assert findings(CODE, script) == []


def test_a_real_adapter_file_holds_nothing_of_the_module_around_it(tmp_path):
    outer = torch.nn.Module()
    outer.encoder, outer.score = tiny.with_lora(tiny.load(kind="none")), torch.nn.Linear(8, 1)
    outer.encoder.save_pretrained(tmp_path)

    assert [name for name in load_file(tmp_path / "adapter_model.safetensors") if "lora_" not in name] == []
