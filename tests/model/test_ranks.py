"""What a rank holds, beside torch's own sharding under a fake process group."""

from __future__ import annotations

import contextlib

import pytest
import tiny
import torch

import kbitlint
from kbitlint.context.launch import Launch
from kbitlint.memory_result import StateMemory, StepMemory
from kbitlint.model.memory.ranks import rank_bytes, units_of

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

    assert sum(units.layers) + units.root == whole
    assert sum(-(-unit // RANKS) for unit in (*units.layers, units.root)) == pytest.approx(local, rel=0.02)


STATE = StateMemory("as it is", {"quantized weights": 1000}, 40, 80, {}, None, 8)
STEP = StepMemory(100, 50, 1500, "lm_head, backward")


@pytest.mark.parametrize(
    ("launch", "told"),
    [
        (Launch("single", 1), (1500, 8)),
        (Launch("ddp", 2), (1540, 8)),
        (Launch("zero1", 2), (1460, 4)),
        (Launch("zero2", 2), (1460, 4)),
        (Launch("fsdp2", 2), (1500 - 40 - 1000 + 200 + 2 * 200 + 500, 4)),
        (Launch("fsdp2", 2, offload=True), (1500 - 40 - 40 - 1000 + 200 + 2 * 200, 4 + 500 + 40)),
        (Launch("zero3", 4), (1500 - 60 - 1000 + 200 + 2 * 200 + 250, 2)),
    ],
    ids=str,
)
def test_a_rank_holds_what_its_strategy_leaves(launch, told):
    from kbitlint.model.memory.ranks import Units

    assert rank_bytes(Units((200, 200, 200, 200), 200), STATE, STEP, launch) == told


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
