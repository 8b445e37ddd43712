from __future__ import annotations

import plants
import pytest
import tiny
import torch

import kbitlint
from kbitlint.context import Strategy, TrainingContext

CODE = "KB704"
# every case is held against real FSDP in tests/integrations/test_ranks.py


def found(model, strategy):
    report = kbitlint.check(model, select=CODE, context=TrainingContext(strategy=strategy), trace=False)
    return [(v.at.path, v.severity.value, v.message) for v in report.violations]


@pytest.mark.parametrize(
    ("kind", "strategy", "severity", "message"),
    [
        ("nf4", Strategy.FSDP1, "error", "FSDP1 cannot flatten uint8 weights"),
        ("int8", Strategy.FSDP1, "error", "FSDP1 cannot flatten int8 weights"),
        ("int8", Strategy.FSDP2, "error", "FSDP2 splits 8-bit weights from their scales"),
        (
            "nf4",
            Strategy.FSDP2,
            "warning",
            "every rank holds the whole weight: FSDP2 leaves uint8 weights out of its shards",
        ),
    ],
)
def test_integer_weights_under_fsdp(kind, strategy, severity, message):
    assert found(tiny.load(kind=kind), strategy) == sorted((path, severity, message) for path in plants.QUANTIZED)


@pytest.mark.parametrize("strategy", [Strategy.FSDP1, Strategy.FSDP2])
def test_a_float_storage_is_sharded(strategy):
    assert found(tiny.load(bnb_4bit_quant_storage=torch.bfloat16), strategy) == []


@pytest.mark.parametrize("strategy", [Strategy.DDP, Strategy.ZERO3, Strategy.SINGLE])
def test_other_strategies_take_integer_weights(strategy):
    assert found(tiny.load(), strategy) == []


def test_a_method_whose_packing_fsdp2_was_not_seen_to_break_is_left_alone(monkeypatch):
    model = tiny.load()
    monkeypatch.setattr("kbitlint.model.layers.quantized._bitsandbytes_4bit", lambda module: _hqq())

    assert found(model, Strategy.FSDP2) == []
    assert {severity for _, severity, _ in found(model, Strategy.FSDP1)} == {"error"}


def _hqq():
    from kbitlint.facts.layers import Packing

    return Packing("hqq", 4, "hqq")


def test_without_a_strategy_the_rule_is_skipped():
    assert [skip.code for skip in kbitlint.check(tiny.load(), select=CODE, trace=False).skips] == [CODE]
