from __future__ import annotations

import pytest
import rank_cases
import tiny
from script_cases import ADAPTED, IMPORTS, LOADED, PREPARED, TRAINED

import kbitlint
from kbitlint.context import Strategy, TrainingContext

CODE = "KB703"
# every case is held against real FSDP in tests/integrations/test_ranks.py; here stand the places and the evidence


def found(model, strategy, **context):
    report = kbitlint.check(model, select=CODE, context=TrainingContext(strategy=strategy, **context), trace=False)
    return {v.at.path: (v.severity.value, v.message) for v in report.violations}


def test_fsdp1_reports_each_unit_with_its_dtypes():
    message = "parameters that FSDP1 flattens together have 2 dtypes: bfloat16, float32"

    units = ("", "model.layers.0", "model.layers.1")
    assert found(rank_cases.FSDP["float32 norms"](), Strategy.FSDP1) == dict.fromkeys(units, ("error", message))


def test_adapters_of_another_dtype_are_a_warning_where_nobody_says_who_wraps():
    model = rank_cases.FSDP["float32 adapters"]()
    message = (
        "parameters that FSDP1 flattens together unless PEFT's wrap policy keeps adapters apart "
        "have 2 dtypes: bfloat16, float32"
    )

    assert found(model, Strategy.FSDP1) == dict.fromkeys(("model.layers.0", "model.layers.1"), ("warning", message))
    assert found(model, Strategy.FSDP1, sets_training_mode=True) == {}


def test_fsdp2_looks_at_trainable_parameters_only():
    message = "trainable parameters that FSDP2 reduces together have 2 dtypes: bfloat16, float32"
    mixed = rank_cases.FSDP["mixed adapters"]()

    assert found(mixed, Strategy.FSDP2) == dict.fromkeys(("model.layers.0", "model.layers.1"), ("error", message))
    assert found(mixed, Strategy.FSDP2, sets_training_mode=True) == {"": ("error", message)}
    assert found(rank_cases.FSDP["float32 norms"](), Strategy.FSDP2) == {}


def test_accelerate_upcasts_first_where_nothing_is_packed_in_4_bits():
    model = rank_cases._adapted(tiny.load(kind="none"))
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and "q_proj" in name:
            parameter.data = parameter.data.bfloat16()

    assert len(found(model, Strategy.FSDP2)) == 2
    assert found(model, Strategy.FSDP2, autocast_dtype="bfloat16") == {}


@pytest.mark.parametrize("strategy", [Strategy.DDP, Strategy.SINGLE, Strategy.ZERO3])
def test_other_strategies_take_any_mix(strategy):
    assert found(rank_cases.FSDP["mixed adapters"](), strategy) == {}


def test_without_a_strategy_the_rule_is_skipped():
    assert [skip.code for skip in kbitlint.check(tiny.load(), select=CODE, trace=False).skips] == [CODE]


# ---------------------------------------------------------------------------------------------------- source

FSDP = "# accelerate launch --use_fsdp --num_processes 8 train.py\n"
STORED = LOADED.replace("=torch.bfloat16)\nmodel", "=torch.bfloat16, bnb_4bit_quant_storage=torch.bfloat16)\nmodel")


def sharded(folder, script):
    path = folder / "train.py"
    path.write_text(script)
    lines = script.splitlines()
    return [(v.severity.value, lines[v.at.line - 1]) for v in kbitlint.check(str(path), select="KB703").violations]


def test_a_preparation_beside_storage_of_another_dtype_is_seen_in_a_script(tmp_path):
    assert sharded(tmp_path, FSDP + IMPORTS + STORED + PREPARED + ADAPTED + TRAINED) == [("error", PREPARED.strip())]


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(FSDP + IMPORTS + STORED + ADAPTED + TRAINED, id="no preparation"),
        pytest.param(IMPORTS + STORED + PREPARED + ADAPTED + TRAINED, id="no launch"),
        pytest.param(
            FSDP.replace("_fsdp", "_fsdp --fsdp_version 2") + IMPORTS + STORED + PREPARED + ADAPTED + TRAINED, id="FSDP2"
        ),
        pytest.param(
            FSDP + IMPORTS + STORED.replace("storage=torch.bfloat16", "storage=torch.float32") + PREPARED + ADAPTED + TRAINED,
            id="one dtype",
        ),
    ],
)
def test_scripts_with_one_dtype_are_not_reported(tmp_path, script):
    assert sharded(tmp_path, script) == []
