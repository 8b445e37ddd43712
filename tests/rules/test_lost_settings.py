from __future__ import annotations

import pytest
from script_cases import LOADED, findings

CODE = "KB662"


FIRST, SECOND = "args = TrainingArguments('out', learning_rate=2e-4, bf16=True)\n", "args = SFTConfig('out', packing=True)\n"
LOOP = "for i in range(4):\n    lora = LoraConfig(r=8, layers_to_transform=[i])\n"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (FIRST + SECOND, "nothing reads args before line {line} binds it anew: learning_rate, bf16 are lost"),
        ("def main():\n    " + FIRST + "    print(1)\n    " + SECOND, "nothing reads args before line {line} binds it anew"),
        (LOOP + "model = get_peft_model(model, lora)\n", "each round makes lora anew, and only the last one is used"),
    ],
)
def test_settings_that_are_lost(body, message):
    ((severity, _, said),) = findings(CODE, body + LOADED)

    assert severity == "warning"
    assert message.partition("{")[0] in said


@pytest.mark.parametrize(
    "body",
    [
        FIRST + "trainer = Trainer(model, args)\n" + SECOND,
        FIRST + FIRST,
        FIRST + "if trl:\n    " + SECOND,
        FIRST + SECOND.replace("packing=True", "**vars(args)"),
        FIRST + SECOND.replace("packing=True", "**settings"),
        FIRST + "lora = LoraConfig(r=8)\n",
        LOOP + "    model.add_adapter(lora)\nprint(lora)\n",
        LOOP + "    break\nprint(lora)\n",
        LOOP,
    ],
)
def test_settings_that_something_reads(body):
    assert findings(CODE, body + LOADED) == []


def test_settings_are_no_result_of_prepare():
    prepared = "from accelerate import Accelerator\nacc = Accelerator()\nopt = torch.optim.AdamW(model.parameters())\n"
    prepared += "acc.prepare(model, opt)\n"

    assert findings("KB572", FIRST + SECOND + LOADED) == []
    assert findings(CODE, LOADED + prepared) == []
    assert [severity for severity, *_ in findings("KB572", LOADED + prepared)] == ["warning"]
