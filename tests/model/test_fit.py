"""Whether a run fits a card: the answer, the changes, and bad input."""

from __future__ import annotations

import json

import pytest
import tiny

import kbitlint
from kbitlint.fixes.changes import options_of
from kbitlint.upstream import cards

SHAPE = {"batch": 8, "seq_len": 128, "context": kbitlint.TrainingContext(autocast_dtype="float32")}


def fit(model, gpu, **options):
    return kbitlint.fit(model, gpu=str(gpu), **(SHAPE | options))


def test_what_fits_is_told_with_its_room_and_the_largest_batch():
    model = tiny.load()
    roomy = fit(model, "24GB")
    just = fit(model, roomy.memory.on_card)
    short = fit(model, roomy.memory.on_card - 1)

    assert (roomy.fits, just.fits, short.fits) == (True, True, False)
    assert roomy.room == roomy.total - roomy.memory.on_card
    assert (roomy.changes, roomy.chosen, just.room) == ((), (), 0)
    assert just.largest[0] == (8, 128)


def test_the_largest_batch_is_a_traced_step_that_fits_and_the_next_does_not():
    model = tiny.load()
    total = fit(model, "24GB", batch=13).memory.on_card + 1000
    (batch, seq_len), *_ = fit(model, total).largest

    assert (batch, seq_len) == (13, 128)
    assert fit(model, total, batch=13).fits
    assert not fit(model, total, batch=14).fits


def test_the_cheapest_changes_are_chosen():
    model = tiny.load()
    usual = fit(model, "24GB").memory.on_card
    found = fit(model, usual - 200_000)
    prices = [change.price for change in found.changes]

    assert found.answer_memory.on_card <= found.total
    assert prices == sorted(prices)
    alone = [change for change in found.changes if change.fits]
    assert sum(change.price for change in found.chosen) <= min(change.price for change in alone)
    assert all(change.saves > 0 and change.flags for change in found.changes)


def test_nothing_makes_it_fit():
    found = fit(tiny.load(), "200MB")

    assert (found.answer, found.chosen, found.largest) == (None, (), ())
    assert "nothing that kbitlint knows makes it fit" in str(found)


def test_the_command_line_leaves_with_0_1_and_2(run):
    arguments = ("fit", tiny.checkpoint(), "--quantize", "nf4", "--seq-len", "64")
    fits = run(*arguments, "--gpu", "4090", "--format", "json")
    misses = run(*arguments, "--gpu", "200MB")
    unknown = run(*arguments, "--gpu", "4091")
    told = json.loads(fits.stdout)

    assert [result.exit_code for result in (fits, misses, unknown)] == [0, 1, 2]
    assert (told["fits"], told["asked"]["seq_len"], told["card"]) == (True, 64, "4090")
    assert max(map(len, misses.stdout.splitlines())) <= 80
    assert unknown.stderr.startswith("kbitlint: --gpu 4091: neither a size such as 24GB nor a known card; did you mean '4090'?")
    assert unknown.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "total"),
    [("RTX 4090", 25_383_000_000), ("H200", 150_109_880_320), ("24GB", 25_383_000_000), ("300MB", 300_000_000)],
)
def test_cards_are_known_by_name_and_by_size(name, total):
    assert cards.find(name).total == pytest.approx(total, rel=0.001)


@pytest.mark.parametrize("name", ["2x24GB", "2 x 24GB", "2*24GB"])
def test_several_cards_are_another_option(name):
    with pytest.raises(kbitlint.KbitlintError, match=r"names one card: pass --gpu 24GB --gpus 2$"):
        cards.find(name)


@pytest.mark.parametrize("name", ["", "abc", "0GB", "-1GB", "4 cards"])
def test_other_words_are_no_card(name):
    with pytest.raises(kbitlint.KbitlintError, match="neither a size such as 24GB nor a known card"):
        cards.find(name)


def test_every_group_of_changes_goes_from_the_cheapest_to_the_strongest():
    from kbitlint.fit_result import Setup
    from kbitlint.fixes.lora import parse_lora
    from kbitlint.fixes.meter import Meter
    from kbitlint.memory_result import OFF
    from kbitlint.step_plan import StepPlan

    meter = Meter(tiny.load(), SHAPE["context"], cards.find("24GB"), 2, parse_lora("r=16"))
    assert meter.saved_by_double == 0  # its tables are larger than what so small a model saves
    setup = Setup(StepPlan(every=2), 8, 512, OFF, 16, strategy="ddp")
    groups = {options[0].name: [option.price for option in options] for options in options_of(setup, meter)}

    assert all(prices == sorted(prices) for prices in groups.values())
    assert list(groups) == [
        "8-bit optimizer",
        "loss in tiles",
        "checkpointing of every 2nd layer",
        "4 sequences at a time",
        "FSDP2 over 2 cards",
        "rank 8",
        "256 tokens",
    ]
