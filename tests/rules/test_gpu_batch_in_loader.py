from __future__ import annotations

import multiprocessing

import pytest
import torch
from script_cases import ADAPTED, LOADED, PREPARED, findings

MADE = LOADED + PREPARED + ADAPTED
COLLATE = "def collate(rows):\n    return {key: value.cuda() for key, value in pad(rows).items()}\n"
ARGUMENTS = "args = TrainingArguments('out', bf16=True)\n"
RUN = "Trainer(model=model, args=args, train_dataset=data, data_collator=collate).train()\n"
PINS = "and the loader pins each batch, and only tensors of the CPU can be pinned: a RuntimeError"
FORKS = "and a worker process of the loader cannot initialize CUDA again: a RuntimeError"


def said(code, body):
    return [(severity, message) for severity, _, message in findings(code, body)]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (COLLATE + MADE + ARGUMENTS + RUN, f"collate puts tensors onto the GPU, {PINS}"),
        (
            "device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')\n"
            + COLLATE.replace("cuda()", "to(device)")
            + MADE
            + ARGUMENTS.replace("bf16", "dataloader_num_workers=2, dataloader_pin_memory=False, bf16")
            + RUN,
            f"collate puts tensors onto the GPU, {FORKS}",
        ),
        (
            "class Collate:\n    def __call__(self, rows):\n        return pad(rows).to('cuda:0')\n"
            + MADE
            + "loader = torch.utils.data.DataLoader(data, collate_fn=Collate(), num_workers=4)\n",
            f"Collate puts tensors onto the GPU, {FORKS}",
        ),
        (
            MADE + ARGUMENTS + RUN.replace("=collate", "=lambda rows: {'input_ids': pad(rows).cuda()}"),
            f"the collator puts tensors onto the GPU, {PINS}",
        ),
        (COLLATE + MADE + RUN.replace("args=args, ", ""), f"collate puts tensors onto the GPU, {PINS}"),
        (
            MADE + "data = data.with_format('torch', device='cuda')\n" + ARGUMENTS + RUN,
            f"with_format puts tensors onto the GPU, {PINS}",
        ),
    ],
)
def test_batches_that_are_on_the_gpu_too_soon(body, message):
    assert said("KB591", body) == [("error", message)]


@pytest.mark.parametrize(
    "body",
    [
        COLLATE.replace("cuda()", "cuda().cpu()") + MADE + ARGUMENTS + RUN,
        COLLATE.replace(".cuda()", "") + MADE + ARGUMENTS + RUN,
        COLLATE + MADE + ARGUMENTS.replace("bf16", "dataloader_pin_memory=False, bf16") + RUN,
        COLLATE + MADE + "loader = torch.utils.data.DataLoader(data, collate_fn=collate)\n",
        COLLATE + MADE + ARGUMENTS.replace("bf16=True", "**further") + RUN,
        COLLATE.replace("cuda()", "to(args.device)") + MADE + ARGUMENTS + RUN,
    ],
)
def test_look_alikes(body):
    assert said("KB591", body) == []


def test_the_line_is_that_of_the_move():
    assert [line for _, line, _ in findings("KB591", COLLATE + MADE + ARGUMENTS + RUN)] == [COLLATE.split("\n")[1].strip()]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_loader_cannot_pin_what_is_on_the_gpu():
    with pytest.raises(RuntimeError, match="pin"):
        next(iter(torch.utils.data.DataLoader([torch.ones(1, device="cuda")], pin_memory=True)))
    assert multiprocessing.get_start_method() == "fork"
