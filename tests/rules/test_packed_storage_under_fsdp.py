from __future__ import annotations

import pytest
from script_cases import ADAPTED, LOADED, RECIPE, findings, fixed_text

FSDP = "Trainer(model=model, args=TrainingArguments('out', fsdp='full_shard', bf16=True)).train()\n"
FIRST = FSDP.replace("'full_shard'", "'full_shard', fsdp_config={'version': 1}")


@pytest.mark.parametrize(("training", "severity"), [(FSDP, "warning"), (FIRST, "error")])
def test_integers_cannot_be_sharded(training, severity):
    assert findings("KB722", LOADED + ADAPTED + training) == [
        (severity, LOADED.split("\n")[0], "4-bit weights are stored as integers, which FSDP cannot shard")
    ]


def test_the_fix_stores_the_same_bytes_as_bfloat16(tmp_path):
    body = fixed_text("KB722", LOADED + ADAPTED + FSDP, tmp_path, unsafe=False)

    assert body.split("\n")[0] == LOADED.split("\n")[0].replace(")", ", bnb_4bit_quant_storage=torch.bfloat16)")


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(RECIPE, id="one device"),
        pytest.param(
            LOADED.replace(")", ", bnb_4bit_quant_storage=torch.bfloat16)", 1) + ADAPTED + FSDP, id="stored as bfloat16"
        ),
        pytest.param(LOADED.replace("load_in_4bit", "load_in_8bit") + ADAPTED + FSDP, id="8 bits have no storage"),
        pytest.param(ADAPTED + FSDP, id="unknown model"),
        pytest.param(LOADED + ADAPTED + FSDP.replace("'full_shard'", "mode"), id="unknown mode"),
    ],
)
def test_look_alikes(script):
    assert findings("KB722", script) == []
