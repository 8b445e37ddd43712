from __future__ import annotations

import pytest
import tiny
from script_cases import LOADED, findings, flagged_lines

CODE = "KB551"
PLAIN = "plain = AutoModelForCausalLM.from_pretrained('org/base', dtype=torch.float32)\n"
WRITTEN = "torch.save(model.state_dict(), 'model.pt')\n"
READ = "plain.load_state_dict(torch.load('model.pt'), strict=False)\n"


def test_packed_weights_do_not_fit():
    told = "the weights are packed, and this model is not quantized: their shapes differ, with strict=False too"

    assert findings(CODE, LOADED + WRITTEN + PLAIN + READ) == [("error", READ.strip(), told)]


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(LOADED + PLAIN + "plain.load_state_dict(model.state_dict())\n", id="directly"),
        pytest.param(LOADED + "weights = model.state_dict()\n" + PLAIN + "plain.load_state_dict(weights)\n", id="by a name"),
        pytest.param(
            "def train():\n    "
            + (LOADED + WRITTEN).replace("\n", "\n    ")
            + "\ndef deploy():\n    "
            + (PLAIN + READ).replace("\n", "\n    ")
            + "return plain\n",
            id="in two functions",
        ),
        pytest.param(
            LOADED
            + "torch.save({'model': model.state_dict(), 'step': 1}, 'all.pt')\n"
            + PLAIN
            + "state = torch.load('all.pt')\nplain.load_state_dict(state['model'])\n",
            id="in a dict",
        ),
    ],
)
def test_each_way_is_seen(script):
    assert [severity for severity, _ in flagged_lines(CODE, script)] == ["error"]


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(LOADED + WRITTEN + LOADED.replace("model =", "plain =") + READ, id="into a quantized model"),
        pytest.param(PLAIN.replace("plain", "model") + WRITTEN + PLAIN + READ, id="of an unquantized model"),
        pytest.param(LOADED + WRITTEN + PLAIN + READ.replace("model.pt", "other.pt"), id="another file"),
        pytest.param(LOADED + "torch.save(get_peft_model_state_dict(model), 'model.pt')\n" + PLAIN + READ, id="adapters"),
    ],
)
def test_look_alikes(script):
    assert findings(CODE, script) == []


def test_a_real_load_raises_in_spite_of_strict_false():
    packed, plain = tiny.load(), tiny.load(kind="none")

    with pytest.raises(RuntimeError, match="size mismatch"):
        plain.load_state_dict(packed.state_dict(), strict=False)
