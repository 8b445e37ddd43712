"""Whether a run fits a card: the answer, the changes, and bad input."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest
import tiny

import kbitlint
from kbitlint.fit_result import RankMemory, Setup
from kbitlint.fixes.changes import options_of
from kbitlint.fixes.fit import _most
from kbitlint.fixes.lora import parse_lora
from kbitlint.fixes.meter import Meter
from kbitlint.memory_result import OFF
from kbitlint.model.memory import step_memory
from kbitlint.step_plan import Loss, StepPlan
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
    [
        ("RTX 4090", 25_383_000_000),
        ("RTX 4090 24GB", 25_383_000_000),
        ("3090ti", 25_383_000_000),
        ("NVIDIA A100-SXM4-80GB", 84_611_000_000),
        ("A100 40GB", 42_305_000_000),
        ("Tesla V100-SXM2-16GB", 16_922_000_000),
        ("4060 Ti 8GB", 8_461_000_000),
        ("H200", 150_109_880_320),
        ("24GB", 25_383_000_000),
        ("300MB", 300_000_000),
        ("0.5 TB", 500_000_000_000),
    ],
)
def test_cards_are_known_by_name_and_by_size(name, total):
    assert cards.find(name).total == pytest.approx(total, rel=0.001)


@pytest.mark.parametrize("name", ["2x24GB", "2 x 24GB", "2*24GB"])
def test_several_cards_are_another_option(name):
    with pytest.raises(kbitlint.KbitlintError, match=r"names one card: pass --gpu 24GB --gpus 2$"):
        cards.find(name)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        *((name, "neither a size such as 24GB nor a known card") for name in ("", "abc", "0GB", "-1GB", "4 cards", "9" * 400)),
        ("5090 Ti", "neither a size such as 24GB nor a known card; did you mean '5070Ti'?"),
        ("24", "neither a size such as 24GB nor a known card; did you mean '24GB'?"),
        ("A100 24GB", "A100 has 80 or 40 GB"),
        ("11TB", "no card has more than 10 TB"),
        ("9" * 400 + "GB", "no card has more than 10 TB"),
    ],
)
def test_other_words_are_no_card(name, line):
    with pytest.raises(kbitlint.KbitlintError, match=re.escape(f": {line}")) as error:
        cards.find(name)
    assert len(str(error.value)) < 600


def test_every_group_of_changes_goes_from_the_cheapest_to_the_strongest():
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


#: runs as people ask for them: (strategy, what else is set)
ASKED = [
    ("single", {}),
    ("ddp", {}),
    ("zero2", {}),
    ("fsdp2", {}),
    ("fsdp2", {"offload": True}),
    ("fsdp2", {"offload": True, "stored": True}),
    ("single", {"batch": 6, "mode": "checkpointed", "plan": {"optimizer": "paged_adamw_8bit", "loss": Loss.FUSED}}),
]


@pytest.mark.parametrize(("strategy", "further"), ASKED)
def test_a_change_that_the_run_has_already_is_not_offered(strategy, further):
    meter = Meter(tiny.load(), SHAPE["context"], cards.find("24GB"), 1 if strategy == "single" else 2, parse_lora("r=16"))
    plan = StepPlan(every=2, **further.get("plan", {}))
    settings = {"batch": 8, "seq_len": 128, "mode": OFF, "rank": 16, "strategy": strategy} | further | {"plan": plan}
    setup = Setup(**settings)
    offered = [option for group in options_of(setup, meter) for option in group]
    runs = [option.apply(setup) for option in offered]

    assert len({setup, *runs}) == len(runs) + 1
    for option, run in zip(offered, runs, strict=True):
        again = [other.name for group in options_of(run, meter) for other in group]
        assert option.name not in again
    assert all(run.offload or not setup.offload for run in runs)
    batches = [run.batch * run.plan.accumulation for run in runs]
    assert batches == [setup.batch] * len(runs)


def test_layers_are_spread_over_cards_where_no_strategy_shards_the_weights():
    setup = Setup(StepPlan(every=2), 1, 128, OFF, 16, strategy="ddp")
    offers = {}
    for method in ("nf4", "int8"):
        meter = Meter(tiny.load(kind=method), SHAPE["context"], cards.find("24GB"), 2, parse_lora("r=16"))
        offers[method] = {option.name for group in options_of(setup, meter) for option in group if "cards" in option.name}

    assert offers["int8"] == {"layers over 2 cards"}
    assert offers["nf4"] == {"FSDP2 over 2 cards", "FSDP2 over 2 cards, with offload"}


def test_double_quantization_saves_on_each_card_what_lies_there():
    meter = Meter(tiny.load(), SHAPE["context"], cards.find("24GB"), 2, parse_lora("r=16"))
    meter.saved_by_double = 1000
    saved = {}
    for strategy in ("ddp", "fsdp2", "device_map"):
        setup = Setup(StepPlan(), 1, 128, OFF, 16, strategy=strategy)
        saved[strategy] = meter._further(setup) - meter._further(dataclasses.replace(setup, double=True))

    assert saved == {"ddp": 1000, "fsdp2": 1000, "device_map": 500}


def test_no_length_is_searched_where_none_matters():
    """The step of a model of images is the same for every number of tokens."""
    asked = Setup(StepPlan(), 1000, 2048, OFF, 16)
    rank = RankMemory(1, 1, 0, "")

    class Images:
        """The meter of such a model."""

        card, searched = cards.find("24GB"), []  # read by this test alone

        def most(self, *_):
            return 2**20

        def rank(self, setup):
            self.searched.append(setup.seq_len)
            return rank

    assert _most(asked, Images(), "seq_len") == 2048
    assert Images.searched == [2048, 4096]


def test_no_step_runs_twice_and_no_model_is_walked_for_each_step(monkeypatch):
    steps, walks = [], []
    step, walk = step_memory.traced_step, step_memory.resident_bytes
    model = tiny.load()
    total = fit(model, "24GB").memory.on_card - 200_000
    monkeypatch.setattr(step_memory, "traced_step", lambda *arguments: steps.append(arguments) or step(*arguments))
    monkeypatch.setattr(step_memory, "resident_bytes", lambda *arguments: walks.append(arguments) or walk(*arguments))
    found = fit(model, total, gpus=2)

    assert found.answer is not None
    assert found.steps == len(steps) <= 24
    assert len(walks) == 2  # with LoRA of rank 16 and of rank 8


@pytest.mark.parametrize("strategy", ["fsdp2", "zero3", "device_map"])
def test_ranks_that_share_the_weights_load_and_save_in_their_own_way(strategy):
    folder, options = tiny.checkpoint(), {"quantize": "nf4" if strategy == "device_map" else "nf4-bf16", "seq_len": 64}
    table = kbitlint.memory(folder, gpus=2, strategy=strategy, **options)
    alone = kbitlint.memory(folder, **options)
    loads = [phase for phase in table.states[0].phases if phase.name == "loading"]
    whole = next(phase for phase in alone.states[0].phases if phase.name == "loading")

    assert [phase.label for phase in table.states[0].phases][: len(loads)] == ["loading"] * len(loads)
    assert "saving" in [phase.label for phase in table.states[0].phases]
    if strategy == "device_map":
        assert [phase.peak < whole.peak for phase in loads] == [True]
    else:
        assert loads[0].peak == whole.peak
        assert [phase.words for phase in loads[1:]] == ['from the host of each rank, device_map={"": "cpu"}'] * (
            strategy == "fsdp2"
        )
        kept = {kind: count for kind, count in alone.states[0].resident.items() if kind not in ("adapters", "buffers")}
        assert [phase.host for phase in loads[1:]] == [sum(kept.values())] * (strategy == "fsdp2")


def test_a_run_fits_if_one_way_to_load_does(tmp_path):
    sizes = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32}
    kind = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "bfloat16", "vocab_size": 32000}
    (tmp_path / "config.json").write_text(json.dumps(kind | sizes | {"num_key_value_heads": 8}))
    options = {"quantize": "nf4-bf16", "gpus": 4, "strategy": "fsdp2", "seq_len": 64, "checkpointing": "all"}
    roomy = kbitlint.fit(tmp_path, gpu="24GB", **options)
    whole, shared = (on_card for phase, on_card in roomy.phases if phase.name == "loading")
    close = dataclasses.replace(roomy, total=max(roomy.memory.on_card, shared))
    short = dataclasses.replace(close, phases=tuple(pair for pair in close.phases if pair[1] != shared))

    assert close.total < whole
    assert (close.fits, close.too_large) == (True, ())
    assert (short.fits, [phase.name for phase in short.too_large]) == (False, ["loading"])
    assert "does not fit: whole on the card of each rank" in " ".join(str(close).split())
