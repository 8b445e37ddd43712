"""Commands beside a script: the flags that it gets and the ranks that they start."""

from __future__ import annotations

import json

import pytest
from script_cases import IMPORTS

from kbitlint.audit.scripts import run
from kbitlint.context import TrainingContext
from kbitlint.context.strategy import Strategy
from kbitlint.registry import find
from kbitlint.source import documents
from kbitlint.source.interpreter.objects import Constant
from kbitlint.source.launches import Launch, launch_of

LOADS = IMPORTS + (
    "import argparse\n"
    "parser = argparse.ArgumentParser()\n"
    "parser.add_argument('--bits', type=int, default=16)\n"
    "parser.add_argument('--zero', default=None)\n"
    "args = parser.parse_args()\n"
    "bnb = BitsAndBytesConfig(load_in_4bit=args.bits == 4, bnb_4bit_quant_type='nf4', bnb_4bit_compute_dtype='bfloat16')\n"
    "model = AutoModelForCausalLM.from_pretrained('org/base', quantization_config=bnb, device_map={'': 0})\n"
    "Trainer(model=model, args=TrainingArguments('out', deepspeed=args.zero), train_dataset=data).train()\n"
)


def said(folder, code, script=LOADS, context=None):
    path = folder / "train.py"
    path.write_text(script)
    facts = documents.read(path, path.name).facts
    return [(v.severity.value, v.message) for v in run((find(code),), facts, context or TrainingContext())[0].violations]


@pytest.mark.parametrize(
    ("name", "text", "launch"),
    [
        ("run.sh", "python train.py --bits 4 --lr 1e-4\n", Launch({"bits": Constant(4), "lr": Constant(1e-4)}, processes=1)),
        (
            "run.sh",
            "torchrun --nproc_per_node 4 \\\n  train.py --bf16\n",
            Launch({"bf16": Constant(value=True)}, "torchrun in run.sh", processes=4),
        ),
        ("run.sh", "torchrun --nproc_per_node=1 src/train.py\n", Launch(processes=1)),
        (
            "job.slurm",
            "#SBATCH -N 1\nsrun torchrun --nproc_per_node 2 train.py\n",
            Launch({}, "torchrun in job.slurm", processes=2),
        ),
        ("job.sbatch", "srun torchrun --nproc_per_node 2 train.py\n", Launch({}, "torchrun in job.sbatch", processes=2)),
        ("notes.slides", "torchrun --nproc_per_node 2 train.py\n", None),
        (
            "run.sh",
            "deepspeed train.py --deepspeed z3.json > log\n",
            Launch({"deepspeed": Constant("z3.json")}, "deepspeed in run.sh"),
        ),
        (
            "README.md",
            "    $ accelerate launch --num_processes 2 train.py\n",
            Launch({}, "accelerate launch in README.md", processes=2),
        ),
        ("README.md", "`CUDA_VISIBLE_DEVICES=0 python train.py --bits 4`\n", Launch({"bits": Constant(4)}, processes=1)),
        ("README.md", "Look at train.py, and run it with torchrun.\n", None),
        ("run.sh", "# python train.py --bits 4\npython other.py --bits 8\n", None),
        ("run.sh", "python train.py --bits 4 --seed 1\npython train.py --bits 4\n", Launch({"bits": Constant(4)}, processes=1)),
        ("run.sh", "python train.py --bits 4\npython train.py --bits 8\n", Launch(processes=1)),
        (
            "run.sh",
            "python train.py --bits 4 ...\npython train.py --bits 4 --seed 1\n",
            Launch({"bits": Constant(4), "seed": Constant(1)}, cut=True, processes=1),
        ),
    ],
)
def test_a_command_tells_the_flags_and_the_ranks(tmp_path, name, text, launch):
    (tmp_path / name).write_text(text)

    assert launch_of(tmp_path / "train.py") == launch


def test_a_variable_of_the_shell_is_unknown(tmp_path):
    from kbitlint.facts.values import UNKNOWN

    (tmp_path / "run.sh").write_text("python train.py --bits $BITS\n")

    assert launch_of(tmp_path / "train.py") == Launch({"bits": UNKNOWN}, processes=1)


def test_the_flags_decide_what_the_script_does(tmp_path):
    assert said(tmp_path, "KB220") == []

    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "run.sh").write_text("python train.py --bits 4\n")

    assert [severity for severity, _ in said(tmp_path / "more", "KB220")] == ["error"]


def test_several_ranks_make_a_constant_device_wrong(tmp_path):
    assert said(tmp_path, "KB720") == []

    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "launch.sh").write_text("torchrun --nproc_per_node 2 train.py --bits 4\n")

    assert said(tmp_path / "two", "KB720") == [
        ("warning", "every rank places the model by the same map, and torchrun in launch.sh tells of several")
    ]


def test_an_accelerate_configuration_with_fsdp_shards_the_model(tmp_path):
    (tmp_path / "fsdp.yaml").write_text(
        "compute_environment: LOCAL_MACHINE\ndistributed_type: FSDP\nmixed_precision: bf16\nnum_processes: 2\n"
        "machine_rank: 0\nfsdp_config:\n  fsdp_sharding_strategy: FULL_SHARD\n"
    )
    (tmp_path / "run.sh").write_text("accelerate launch --config_file fsdp.yaml train.py --bits 4\n")

    launch = Launch({"bits": Constant(4)}, "accelerate launch in run.sh", fsdp=True, flattens=True, processes=2)
    assert launch_of(tmp_path / "train.py") == launch
    assert [message for _, message in said(tmp_path, "KB722")] == [
        "4-bit weights are stored as integers, which FSDP cannot shard"
    ]


@pytest.mark.parametrize(
    ("strategy", "ranks", "found"),
    [
        (None, None, {"KB720": "warning"}),
        (Strategy.SINGLE, 1, {}),
        (Strategy.DDP, 2, {"KB720": "warning"}),
        (Strategy.FSDP1, 2, {"KB720": "warning", "KB722": "error"}),
        (Strategy.FSDP2, 2, {"KB720": "warning", "KB722": "warning"}),
        (Strategy.ZERO3, None, {"KB720": "warning", "KB721": "warning"}),
    ],
)
@pytest.mark.parametrize("command", ["torchrun --nproc_per_node 4 train.py --bits 4", "python train.py --bits 4"])
def test_the_launch_that_the_user_names_counts_before_a_command_beside_the_script(tmp_path, strategy, ranks, found, command):
    (tmp_path / "job.slurm").write_text(f"#SBATCH --gres=gpu:4\nsrun {command}\n")
    context = TrainingContext(strategy=strategy, world_size=ranks)
    told = {code: said(tmp_path, code, context=context) for code in ("KB720", "KB721", "KB722")}
    expected = found if strategy is not None or "torchrun" in command else {}

    assert {code: findings[0][0] for code, findings in told.items() if findings} == expected


@pytest.mark.parametrize("text", ["accelerate launch --config_file missing.yaml train.py\n", "deepspeed train.py\n"])
def test_a_missing_configuration_tells_nothing(tmp_path, text):
    (tmp_path / "run.sh").write_text(text)

    assert launch_of(tmp_path / "train.py").fsdp is False


@pytest.mark.parametrize(
    ("notes", "launch"),
    [
        ("accelerate launch --multi_gpu train.py --bits 4", Launch({"bits": Constant(4)}, "accelerate launch in train.py")),
        (
            "accelerate launch --use_fsdp --num_processes 8 train.py",
            Launch({}, "accelerate launch in train.py", fsdp=True, flattens=True, processes=8),
        ),
        (
            "accelerate launch --use_fsdp --fsdp_version 2 --num_processes 8 train.py",
            Launch({}, "accelerate launch in train.py", fsdp=True, processes=8),
        ),
        ("accelerate launch --multi_gpu other.py", None),
        ("train.py needs torchrun", None),
    ],
)
def test_the_comments_of_a_script_tell_its_launch(tmp_path, notes, launch):
    assert launch_of(tmp_path / "train.py", notes) == launch


@pytest.mark.parametrize(
    "note", ["# torchrun --nproc_per_node 4 train.py\n", '"""Run: torchrun --nproc_per_node 4 train.py"""\n']
)
def test_a_comment_or_docstring_counts_and_code_does_not(tmp_path, note):
    assert len(said(tmp_path, "KB720", note + LOADS)) == 1
    assert said(tmp_path, "KB720", LOADS + 'command = "torchrun --nproc_per_node 4 train.py"\n') == []


WRAPS = (
    "from accelerate import Accelerator\nimport torch\n" + IMPORTS + "acc = Accelerator()\n"
    "model = AutoModelForCausalLM.from_pretrained('m')\nmodel = get_peft_model(model, LoraConfig(r=8))\n"
    "optimizer = torch.optim.AdamW(model.parameters())\nmodel, optimizer = acc.prepare(model, optimizer)\n"
    "acc.backward(model(**batch).loss)\n"
)


@pytest.mark.parametrize(
    ("command", "end", "count"),
    [
        ("accelerate launch --num_processes 2 train.py", "model.save_pretrained('out')\n", 1),
        ("accelerate launch --num_processes 2 train.py", "acc.unwrap_model(model).save_pretrained('out')\n", 0),
        ("accelerate launch --num_processes 2 train.py", "model.module.save_pretrained('out')\n", 0),
        ("accelerate launch --num_processes 2 --use_fsdp train.py", "model.save_pretrained('out')\n", 0),
        ("python train.py", "model.save_pretrained('out')\n", 0),
    ],
)
def test_an_accelerator_wraps_the_model_of_several_processes(tmp_path, command, end, count):
    (tmp_path / "run.sh").write_text(command)

    assert [message for _, message in said(tmp_path, "KB570", WRAPS + end)] == [
        "the object of DistributedDataParallel has no attribute save_pretrained: an AttributeError"
    ] * count


OWN_ARGUMENTS = (
    "import dataclasses\nimport transformers\n"
    "from transformers import AutoModelForCausalLM, BitsAndBytesConfig, HfArgumentParser, Trainer\n"
    "@dataclasses.dataclass\nclass Own(transformers.TrainingArguments):\n    rank: int = 8\n"
    "(args,) = HfArgumentParser(Own).parse_args_into_dataclasses()\n"
    "model = AutoModelForCausalLM.from_pretrained('m', quantization_config=BitsAndBytesConfig(load_in_4bit=True),\n"
    "    device_map={'': args.local_rank})\n"
    "Trainer(model=model, args=args, train_dataset=data).train()\n"
)


@pytest.mark.parametrize(("stage", "expected"), [(3, ["error"]), (2, [])])
def test_a_command_sets_the_inherited_arguments_of_a_class(tmp_path, stage, expected):
    (tmp_path / "ds.json").write_text(json.dumps({"zero_optimization": {"stage": stage}}))
    (tmp_path / "run.sh").write_text("deepspeed --num_gpus 2 train.py --deepspeed ds.json --output_dir out\n")

    assert [severity for severity, _ in said(tmp_path, "KB721", OWN_ARGUMENTS)] == expected
