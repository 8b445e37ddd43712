from __future__ import annotations

import pytest
import tiny
from script_cases import ADAPTED, LOADED, OLD, findings
from transformers.training_args import OptimizerNames

import kbitlint
from kbitlint.context import Strategy, TrainingContext

CODE = "KB709"
# what the optimizers do to FSDP1's and FSDP2's parameters is held against this rule in tests/causes/test_rank_causes.py


def found(optimizer, strategy=Strategy.FSDP2, *, trains=True):
    model = tiny.with_lora(tiny.load())
    if not trains:
        model.requires_grad_(False)
    context = TrainingContext(strategy=strategy, optimizer=optimizer)
    report = kbitlint.check(model, select=CODE, context=context, trace=False)
    return [(v.at.path, v.severity.value, v.message, v.evidence) for v in report.violations]


def test_it_names_the_optimizer():
    assert found("paged_adamw_8bit") == [
        (
            "",
            "error",
            "the optimizer paged_adamw_8bit of bitsandbytes cannot step parameters that FSDP2 shards",
            {"optimizer": "paged_adamw_8bit", "trainable": 28},
        )
    ]


@pytest.mark.skipif(not tiny.TRANSFORMERS_5, reason="transformers 4 keeps no table of them")
def test_the_names_are_exactly_those_that_trainer_takes_from_bitsandbytes():
    from transformers.trainer_optimizer import _BITSANDBYTES_OPTIMIZERS

    model = tiny.with_lora(tiny.load())

    def reported(name):
        context = TrainingContext(strategy=Strategy.FSDP2, optimizer=name)
        return bool(kbitlint.check(model, select=CODE, context=context, trace=False).violations)

    names = [name.value for name in OptimizerNames]
    assert {name for name in names if reported(name)} == {name.value for name in map(OptimizerNames, _BITSANDBYTES_OPTIMIZERS)}


@pytest.mark.parametrize("strategy", [Strategy.SINGLE, Strategy.DDP, Strategy.FSDP1, Strategy.ZERO2, Strategy.ZERO3])
def test_other_strategies_hand_out_plain_tensors(strategy):
    assert found("adamw_bnb_8bit", strategy) == []


@pytest.mark.parametrize("optimizer", ["adamw_torch", "adamw_torch_fused", "adamw_torch_8bit", "adafactor", "sgd", None])
def test_optimizers_of_others_are_fine(optimizer):
    assert found(optimizer) == []


def test_nothing_trains_so_nothing_is_stepped():
    assert found("adamw_bnb_8bit", trains=False) == []


def test_without_a_strategy_the_rule_is_skipped():
    assert [skip.code for skip in kbitlint.check(tiny.load(), select=CODE, trace=False).skips] == [CODE]


def trained(arguments):
    return LOADED + ADAPTED + f"args = TrainingArguments('out', bf16=True, {arguments})\nTrainer(model, args).train()\n"


FULL = "fsdp='full_shard auto_wrap', optim='paged_adamw_8bit'"
MESSAGE = "the optimizer paged_adamw_8bit of bitsandbytes cannot step parameters that FSDP2 shards"


@pytest.mark.parametrize(
    "arguments",
    [
        FULL,
        FULL + ", fsdp_config={'activation_checkpointing': True}",
        FULL + ", fsdp_config={'version': 2}",
        FULL + ", fsdp_config={'fsdp_version': '2'}",
        FULL.replace("'full_shard auto_wrap'", "True"),
    ],
)
def test_a_script_that_asks_for_both(arguments):
    script = trained(arguments)

    assert findings(CODE, script) == [("error", script.splitlines()[3], MESSAGE)]


@pytest.mark.parametrize(
    "arguments",
    [
        FULL + ", fsdp_config={'version': 1}",
        FULL + ", fsdp_config={'xla': True}",
        FULL + ", fsdp_config='fsdp.json'",
        FULL + ", fsdp_config={**more}",
        FULL.replace("paged_adamw_8bit", "adamw_torch_8bit"),
        FULL.replace("'paged_adamw_8bit'", "name"),
        "fsdp='full_shard'",
        "optim='paged_adamw_8bit'",
        "fsdp='', optim='paged_adamw_8bit'",
    ],
)
def test_scripts_that_do_not(arguments):
    assert findings(CODE, trained(arguments)) == []


def test_transformers_4_takes_fsdp1_unless_told_otherwise():
    assert findings(CODE, trained(FULL), versions=OLD) == []
    assert len(findings(CODE, trained(FULL + ", fsdp_config={'version': 2}"), versions=OLD)) == 1
