"""What a rank holds, beside torch's own sharding under a fake process group."""

from __future__ import annotations

import contextlib

import pytest
import tiny
import torch

import kbitlint
from kbitlint.context.launch import Launch
from kbitlint.memory_result import OFF
from kbitlint.model.memory.live_bytes import Alive
from kbitlint.model.memory.ranks import Rank, Unit, Units, units_of

RANKS = 4


@contextlib.contextmanager
def ranks():
    """Pretend to be the first of some ranks. Nothing is sent."""
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=RANKS)
    try:
        yield init_device_mesh("cpu", (RANKS,))
    finally:
        dist.destroy_process_group()


def test_shards_are_those_of_fully_shard():
    from torch.distributed.fsdp import fully_shard

    model = tiny.with_lora(tiny.load(bnb_4bit_quant_storage=torch.bfloat16))
    units = units_of(model)
    whole = sum(parameter.nbytes for parameter in model.parameters())
    with ranks() as mesh:
        for layer in tiny.adapters_base(model).model.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
        local = sum(parameter.to_local().nbytes for parameter in model.parameters())

    assert sum(unit.nbytes for unit in units.sharded) == whole
    assert sum(-(-unit.nbytes // RANKS) for unit in units.sharded) == pytest.approx(local, rel=0.02)
    assert units.integers == 0


def test_weights_that_are_stored_as_integers_are_whole_on_every_rank():
    model = tiny.with_lora(tiny.load())
    packed = sum(weight.nbytes for weight in model.parameters() if weight.dtype is torch.uint8)
    left, stored = units_of(model), units_of(model, stored=True)
    rank = Rank(Launch("fsdp2", RANKS), left)

    assert (left.integers, stored.integers) == (packed, 0)
    assert sum(unit.nbytes for unit in stored.sharded) == sum(unit.nbytes for unit in left.sharded) + packed
    assert rank.resident({"quantized weights": packed, "norms": 400, "buffers": 8}) == {
        "quantized weights": packed,
        "norms": 100,
        "buffers": 8,
    }
    with pytest.raises(
        kbitlint.KbitlintError, match="'fsdp1' takes no packed weights that are stored as integers: set bnb_4bit"
    ):
        Rank(Launch("fsdp1", RANKS), left)


def test_int8_weights_are_refused_where_weights_are_sharded(run):
    units = units_of(tiny.with_lora(tiny.load(kind="int8")))

    assert units.int8
    assert Rank(Launch("ddp", 2), units).buckets(40) == 40
    with pytest.raises(kbitlint.KbitlintError, match="'fsdp2' takes no int8 weights of bitsandbytes"):
        Rank(Launch("fsdp2", 2), units)
    wrong = run("memory", tiny.checkpoint(), "--quantize", "nf4", "--gpus", "2", "--strategy", "zero3")
    assert (wrong.exit_code, wrong.stdout, wrong.stderr.count("\n")) == (2, "", 1)
    assert "takes no packed weights that are stored as integers" in wrong.stderr


@pytest.mark.parametrize(("family", "shared"), [("t5 (encoder-decoder)", "embed_tokens"), ("llama", ""), ("tied", "")])
def test_a_parameter_that_two_units_share_is_refused_as_torch_refuses_it(family, shared):
    model = tiny.load("llama" if family == "tied" else family, bnb_4bit_quant_storage=torch.bfloat16)
    if family == "tied":
        model.lm_head.weight = model.model.embed_tokens.weight
    units = units_of(tiny.with_lora(model))

    assert shared in units.shared
    assert bool(units.shared) == bool(shared)
    if shared:
        with pytest.raises(kbitlint.KbitlintError, match=r"'fsdp2' takes no parameter that two of its units share, as .*embed"):
            Rank(Launch("fsdp2", 2), units)
        assert Rank(Launch("ddp", 2), units).buckets(40) == 40


@pytest.mark.usefixtures("preloaded")
def test_torch_refuses_what_two_units_share():
    import gloo

    assert gloo.run("shared_embeddings") == [("ValueError", None)] * 2


UNITS = Units(tuple(Unit(f"layers.{number}", 200, 20) for number in range(4)), Unit("embed", 100), Unit("", 300))
RESIDENT = {"quantized weights": 1000, "quantization state": 10, "adapters": 80}
#: launch -> (resident, optimizer's state on the card and the host, gradients left, buckets)
HELD = {
    Launch("ddp", 2): (RESIDENT, (80, 8), 40, 40),
    Launch("zero1", 2): (RESIDENT, (40, 4), 40, 0),
    Launch("zero2", 2): (RESIDENT, (40, 4), 20, 0),
    Launch("fsdp2", 2): ({**RESIDENT, "quantized weights": 500, "adapters": 40}, (40, 4), 20, 0),
    Launch("zero3", 4): ({**RESIDENT, "quantized weights": 250, "adapters": 20}, (20, 2), 10, 0),
    Launch("fsdp2", 2, offload=True): (
        {**RESIDENT, "quantized weights": 0, "adapters": 0},
        (0, 4 + 40 + 600),
        20,
        0,
    ),
    Launch("device_map", 2): (
        {"quantized weights": 500, "quantization state": 5, "adapters": 40, "embeddings and head": 0},
        (40, 8),
        40,
        0,
    ),
}


@pytest.mark.parametrize("launch", HELD, ids=str)
def test_a_rank_holds_what_its_strategy_leaves(launch):
    rank = Rank(launch, UNITS)

    assert (rank.resident(RESIDENT), rank.optimizer(80, 8), rank.gradients(40), rank.buckets(40)) == HELD[launch]


@pytest.mark.parametrize(
    ("moment", "alive", "gathered"),
    [
        ("embed, forward", Alive(50), 200),
        ("layers.1.mlp, forward", Alive(50), 400),
        ("norm, forward", Alive(50), 600),
        ("head, backward", Alive(50), 300 + 200),
        ("layers.3, backward", Alive(50, gradients=10), 400),
        ("layers.1.mlp, backward", Alive(50, gradients=50), 400 - 15 + 20),
        ("layers.0, backward", Alive(50, gradients=80), 200 + 100 - 30 + 20),
    ],
)
def test_fsdp2_gathers_the_unit_that_runs_and_the_next(moment, alive, gathered):
    assert Rank(Launch("fsdp2", 2), UNITS).beside(moment, alive) == gathered
    assert Rank(Launch("ddp", 2), UNITS).beside(moment, alive) == 0


@pytest.mark.parametrize(
    ("strategy", "whole"), [("fsdp1", True), ("fsdp2", True), ("zero2", False), ("zero3", False), ("ddp", True)]
)
def test_gradients_of_accumulated_batches_are_whole_where_no_sync_reduces_nothing(strategy, whole):
    """Of 2 real ranks with LoRA r=64, FSDP2 held 18 % more with accumulation than its share says."""
    rank = Rank(Launch(strategy, 4), UNITS)

    assert rank.earlier(400) == (400 if whole else 100)
    assert rank.gradients(400) == (400 if strategy == "ddp" else 100)


def test_the_table_of_a_rank_is_that_of_its_launch():
    model = tiny.load(bnb_4bit_quant_storage=torch.bfloat16)
    context = kbitlint.TrainingContext(autocast_dtype="float32")
    one = kbitlint.memory(model, seq_len=64, context=context)
    ranked = kbitlint.memory(model, seq_len=64, context=context, gpus=2, strategy="fsdp2")

    assert (one.launch, ranked.launch) == ("", "one of 2 ranks, fsdp2")
    whole, half = one.states[0], ranked.states[0]
    assert half.resident["quantized weights"] * 2 == whole.resident["quantized weights"]
    assert (half.optimizer * 2, half.gradients * 2) == (whole.optimizer, whole.gradients)
    assert half.steps[OFF].activations == whole.steps[OFF].activations
    assert "one of 2 ranks, fsdp2, adamw" in str(ranked)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("fsdp", 2), "strategy 'fsdp' is none of single, ddp, .*; did you mean 'fsdp2'"),
        (("fsdp2", 1), "strategy 'fsdp2' needs more than one card"),
        (("single", 2), "strategy 'single' uses one card"),
        (("ddp", 2, True), "strategy 'ddp' offloads no weights"),
        (("ddp", 0), "gpus must be 1 or more, not 0"),
    ],
)
def test_a_launch_that_cannot_be_is_one_line(arguments, line):
    with pytest.raises(kbitlint.KbitlintError, match=line):
        Launch(*arguments)
