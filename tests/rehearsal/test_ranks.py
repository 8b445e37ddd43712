"""Several ranks of a rehearsal are processes that meet on gloo: what one of them does alone is seen, and none is left."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import rehearsal_scripts as scripts

import kbitlint
from kbitlint.rehearsal.inside import peers

pytestmark = pytest.mark.usefixtures("forked")
START = """import os
import torch
import torch.distributed as dist
dist.init_process_group("nccl")
rank = int(os.environ["LOCAL_RANK"])
torch.cuda.set_device(rank)
"""


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    return scripts.project(tmp_path_factory.mktemp("ranks"))


@pytest.fixture
def rehearse(tmp_path, monkeypatch, server):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(peers, "PATIENCE", 6.0)

    def run(code, launcher="torchrun --nproc_per_node 2", **options):
        (tmp_path / "train.py").write_text(code)
        reports = kbitlint.rehearse(f"{launcher} train.py", timeout=300, **options)
        assert processes_of(server) == 1, "the server itself"
        return reports[0]

    return run


def processes_of(server):
    """Return how many processes have the environment of a server, which all that it forked have inherited."""
    count = 0
    for file in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # it has ended
            count += f"TMPDIR={server.folder}".encode() in file.read_bytes()
    return count


def raised(report):
    return [(one.code, one.at.line, one.message) for one in report.violations if "raised" in one.evidence]


def stalls(report):
    return [(one.at.line, one.message) for one in report.violations if one.code == "KB921"]


def unrehearsed(report):
    return [skip.reason for skip in report.skips if not skip.code]


def test_ranks_exchange_their_own_values(rehearse):
    report = rehearse(
        START
        + """assert (dist.get_rank(), dist.get_world_size()) == (rank, 3)
assert (torch.cuda.device_count(), torch.cuda.current_device()) == (3, rank)
value = torch.full((2,), rank + 1.0, device="cuda")
dist.all_reduce(value)
assert value.tolist() == [6, 6]
held = [None] * 3
dist.all_gather_object(held, {"rank": rank})
assert held == [{"rank": 0}, {"rank": 1}, {"rank": 2}]
group = dist.new_group([0, 2], backend="nccl")
if rank != 1:
    dist.barrier(group=group)
empty = torch.empty(2, device="meta")
dist.all_reduce(empty)
dist.barrier()
dist.destroy_process_group()
""",
        "torchrun --nproc_per_node 3",
    )

    assert (raised(report), stalls(report)) == ([], [])
    assert unrehearsed(report) == ["the script ended without a training step"]
    assert "rehearsed on 3 ranks" in report.notes
    assert "as on 3 NVIDIA A100-SXM4-80GB" in report.notes


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "if rank == 1:\n    raise ValueError('no shard')\ndist.barrier()\n",
            "the script raises ValueError: no shard before the first training step on rank 1",
        ),
        ("int('x' * (1 + rank))\n", "the script raises ValueError: invalid literal for int() with base 10: 'x'"),
    ],
    ids=["one", "all"],
)
def test_an_exception_of_any_rank_is_reported_with_its_rank(rehearse, code, message):
    report = rehearse(START + code)

    ((code, line, said),) = raised(report)
    assert said.startswith(message)
    assert ("on rank" in said) == ("on rank" in message)
    assert code == "KB901"
    assert stalls(report) == [], "the others wait because of the exception"
    assert line in (7, 8)


@pytest.mark.parametrize(
    ("code", "line", "meanwhile"),
    [
        ("if rank == 0:\n    dist.barrier()\n", 8, "rank 0 waits here for the other ranks: another rank has ended"),
        ("if rank == 1:\n    dist.barrier()\n", 8, "rank 1 waits here for the other ranks: rank 0 has ended"),
        (
            "dist.all_reduce(torch.ones(2 + rank))\n",
            7,
            "run different collectives here: rank 0 runs allreduce of float [2] and rank 1 runs allreduce of float [3]",
        ),
        (
            "value = torch.ones(2)\ndist.all_reduce(value) if rank else dist.broadcast(value, 0)\n",
            8,
            "run different collectives here: rank 0 runs broadcast of float [2] and rank 1 runs allreduce of float [2]",
        ),
    ],
    ids=["rank 0 alone", "rank 1 alone", "shapes", "operations"],
)
def test_ranks_that_would_wait_for_ever_are_reported(rehearse, code, line, meanwhile):
    report = rehearse(START + code)

    ((found, said),) = stalls(report)
    assert found == line
    assert meanwhile in said
    assert raised(report) == []


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (
            "if rank == 1:\n    open('missing.bin')\ndist.barrier()\n",
            "rank 1: train.py:8: not rehearsed from here on, because a file",
        ),
        (
            "held = [torch.ones(2), torch.ones(3)]\ndist.all_gather(held, torch.ones(2 + rank))\nraise SystemExit\n",
            "train.py:8: not rehearsed from here on, because gloo, which stands in for NCCL, cannot do it",
        ),
    ],
    ids=["a rank that is not rehearsed", "uneven tensors, which NCCL takes"],
)
def test_what_only_a_rehearsal_has_is_no_stall(rehearse, code, reason):
    report = rehearse(START + code)

    assert (raised(report), stalls(report)) == ([], [])
    assert any(skip.startswith(reason) for skip in unrehearsed(report)), unrehearsed(report)


def test_the_file_of_a_launcher_gives_the_ranks(rehearse, tmp_path):
    (tmp_path / "two.yaml").write_text("distributed_type: MULTI_GPU\nnum_processes: 2\n")
    report = rehearse(START + "assert dist.get_world_size() == 2\n", "accelerate launch --config_file two.yaml")

    assert raised(report) == []
    assert "rehearsed on 2 ranks" in report.notes


DDP = """from torch.nn.parallel import DistributedDataParallel
from transformers import AutoModelForCausalLM
from peft import LoraConfig, get_peft_model
model = AutoModelForCausalLM.from_pretrained("meta-llama/Llama-3.2-1B", device_map={"": rank})
assert model.hf_device_map == {"": rank}
model = get_peft_model(model, LoraConfig(r=RANK, target_modules=["q_proj"], task_type="CAUSAL_LM"))
model = DistributedDataParallel(model, device_ids=[rank])
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
tokens = torch.ones(2, 8 + rank, dtype=torch.long)
loss = model(input_ids=tokens, labels=tokens).loss
loss.backward()
optimizer.step()
"""


@pytest.mark.slow
def test_a_model_that_differs_between_ranks_raises_torch_s_own_message(rehearse):
    report = rehearse(START + DDP.replace("RANK", "4 + 4 * rank"))

    ((_, line, said),) = raised(report)
    assert line == 13
    assert "appears not to match sizes" in said or "inconsistent" in said


def test_each_rank_audits_its_training_and_all_agree(rehearse):
    report = rehearse(START + DDP.replace("RANK", "4"))

    assert (raised(report), stalls(report)) == ([], [])
    assert "training reached at line 16" in report.notes
    assert "audited on 2 of 2 ranks" in report.notes


def test_parameters_that_take_no_part_are_an_error_because_ranks_wait_for_their_gradients(rehearse):
    added = "model.unused = torch.nn.Linear(2, 2)\nmodel = DistributedDataParallel"
    report = rehearse(START + DDP.replace("RANK", "4").replace("model = DistributedDataParallel", added))

    (found,) = [one for one in report.violations if one.code == "KB203"]
    assert found.severity.value == "error"
    assert "DDP waits for their gradients" in found.message


SFT = """from accelerate import PartialState
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from trl import SFTConfig, SFTTrainer
bnb = BitsAndBytesConfig(load_in_4bit=True)
model = AutoModelForCausalLM.from_pretrained("tiny-llama", quantization_config=bnb, device_map=PLACED)
trainer = SFTTrainer(
    model=model,
    args=SFTConfig(output_dir="out", max_steps=2, max_length=32, report_to="none"),
    train_dataset=load_dataset("json", data_files="data.jsonl", split="train").select_columns(["text"]),
    processing_class=AutoTokenizer.from_pretrained("tiny-llama"),
    peft_config=LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM"),
)
trainer.train()
"""


@pytest.mark.parametrize(
    ("placed", "message"),
    [
        ('{"": PartialState().process_index}', None),
        ('{"": 0}', "You can't train a model that has been loaded in 8-bit or 4-bit precision on a different device"),
        pytest.param(
            '"auto"', "You can't train a model that has been loaded in 8-bit or 4-bit precision", marks=pytest.mark.slow
        ),
    ],
)
def test_a_trainer_under_accelerate_trains_on_the_device_of_each_rank(rehearse, source, tmp_path, placed, message):
    for name in ("tiny-llama", "data.jsonl"):
        (tmp_path / name).symlink_to(source / name)

    report = rehearse(SFT.replace("PLACED", placed), "accelerate launch --num_processes 2")

    if message is None:
        assert raised(report) == []
        assert "training reached at line 15" in report.notes
        assert "audited on 2 of 2 ranks" in report.notes
    else:
        assert [(line, message in said) for _, line, said in raised(report)] == [(15, True)]
    assert stalls(report) == []


def test_a_launcher_of_more_ranks_than_a_machine_has_is_rehearsed_on_its_first_one(rehearse):
    count = peers.MOST + 1
    report = rehearse(START + f"assert dist.get_world_size() == {count}\n", f"torchrun --nproc_per_node {count}")

    assert raised(report) == []
    assert any(note.startswith("stood in for") and f"the other {count - 1} of {count} ranks" in note for note in report.notes)


def test_a_rank_that_never_ends_is_ended_and_is_no_stall(rehearse):
    report = rehearse(START + "import time\nwhile rank:\n    time.sleep(1)\n")

    assert (raised(report), stalls(report)) == ([], [])
    assert "rank 1 was ended 6 s after rank 0, in line 9" in unrehearsed(report)
