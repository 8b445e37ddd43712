"""Random configurations of axolotl and LLaMA-Factory: what kbitlint says of them, beside the programs' own validators.

    python -m pip install --no-deps axolotl==0.19.0 llamafactory==0.9.5 omegaconf==2.3.0 antlr4-python3-runtime==4.9.3
    python -m benchmarks.truth.recipes [--configurations N] [--seed S] [--json FILE]

A configuration is a right one with two to seven further keys, each with a value of the type that the program's schema gives
it. So nobody chose what stands together. Ground truth is whether the program's validator accepts it. Configurations whose
answer depends on the machine (a GPU, an installed package) are left out.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import enum
import io
import logging
import os
import random
import sys
import tempfile
import types
import typing
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

import kbitlint
from benchmarks.goals import Goal, leave
from kbitlint.violation import Severity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: words of an answer that is one about the machine
_MACHINE = ("gpu", "not installed", "no module named", "device", "launch distributed", "importerror", "no such file", "npu")
_NUMBERS: dict[type, list[Any]] = {bool: [True, False], int: [1, 2, 8, 100], float: [0.0, 0.1, 0.5, 1.0]}


@dataclasses.dataclass(frozen=True)
class Program:
    """A training program: a right configuration, values for its keys, and its validator."""

    name: str
    right: Mapping[str, Any]
    values: Mapping[str, list[Any]]
    validate: Callable[[dict[str, Any]], Any]
    beyond_validation: tuple[str, ...] = ()
    """Parts of kbitlint's messages about what the program raises behind its validator: when it loads the model."""


def values_of(annotation: Any) -> list[Any]:
    """Return values of a type; an empty list for types whose values mean something to the program only."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return [value for part in typing.get_args(annotation) if part is not type(None) for value in values_of(part)]
    if origin is typing.Literal:
        return list(typing.get_args(annotation))
    if origin is typing.Annotated:
        return values_of(typing.get_args(annotation)[0])
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return [member.value for member in annotation]
    return _NUMBERS.get(annotation, [])


def axolotl() -> Program:
    """Return axolotl, with its pydantic schema."""
    from axolotl.utils.schemas.config import AxolotlInputConfig

    right = {"base_model": "lab/base-7b", "adapter": "qlora", "load_in_4bit": True, "learning_rate": 1e-4}
    right |= {"micro_batch_size": 2, "gradient_accumulation_steps": 4, "gradient_checkpointing": True}
    right["datasets"] = [{"path": "a.jsonl", "type": "alpaca"}]
    values = {name: values_of(field.annotation) for name, field in AxolotlInputConfig.model_fields.items()}
    values |= {
        "optimizer": ["adamw_torch", "adamw_8bit", "paged_adamw_8bit", "muon", "polora", "q_galore_adamw8bit"],
        "datasets": [
            [{"path": "a.jsonl", "type": "sharegpt"}],
            [{"path": "a.jsonl", "type": "alpaca"}, {"path": "b.jsonl", "type": "alpaca"}],
        ],
        "trl": [{"num_generations": 4}, {"num_generations": 1}, {"num_generations": 3}, {"beta": 0.1}],
        "fsdp_config": [{"offload_params": True}, {"cpu_ram_efficient_loading": True}, {"cpu_offload_pin_memory": False}],
        "gradient_checkpointing_kwargs": [{"use_reentrant": True}, {"use_reentrant": False}],
        "pretraining_dataset": [[{"path": "c.jsonl"}]],
        "test_datasets": [[{"path": "d.jsonl", "type": "alpaca"}]],
        "attn_implementation": ["flash_attention_2", "sdpa", "flash", "flex_attention"],
    }
    # rules of their own judge what the weights are; the last two ask the machine
    for name in ("adapter", "load_in_4bit", "load_in_8bit", "gptq", "inference", "fp8", "tokenizer_use_mistral_common"):
        values.pop(name, None)
    later = (
        "TrainingArguments raises",
        "when it loads the data",
        "are not compatible with FSDP1",
    )  # the last one with two GPUs
    return Program("axolotl", right, values, lambda given: AxolotlInputConfig(**given), later)


def llamafactory() -> Program:
    """Return LLaMA-Factory, with the parser of its training arguments."""
    os.environ |= {"DISABLE_VERSION_CHECK": "1", "LLAMAFACTORY_VERBOSITY": "ERROR"}
    from llamafactory.hparams import DataArguments, FinetuningArguments, GeneratingArguments, ModelArguments, parser

    parser._check_extra_dependencies = lambda *_: None  # noqa: SLF001  # which packages are installed is not the question
    right = {"model_name_or_path": "lab/base-7b", "stage": "sft", "do_train": True, "finetuning_type": "lora"}
    right |= {"dataset": "d", "template": "llama3", "output_dir": "out", "quantization_bit": 4, "learning_rate": 1e-4}
    values: dict[str, list[Any]] = {}
    for arguments in (ModelArguments, DataArguments, FinetuningArguments, GeneratingArguments):
        hints = typing.get_type_hints(arguments)
        values |= {field.name: values_of(hints[field.name]) for field in dataclasses.fields(arguments) if field.init}
    values |= {
        "eval_dataset": ["e"],
        "reward_model": ["r"],
        "adapter_name_or_path": ["a", "a,b"],
        "interleave_probs": ["0.5,0.5"],
        "pref_loss": ["sigmoid", "orpo", "simpo", "ipo"],
        "eval_strategy": ["steps", "no"],
        "predict_with_generate": [True],
        "load_best_model_at_end": [True],
        "max_steps": [100],
        "do_eval": [True],
        "do_predict": [True],
    }
    for name in ("use_kt", "use_v1_kernels"):
        values.pop(name, None)
    later = ("Bitsandbytes only accepts", "EETQ only accepts", "HQQ only accepts", "EETQ quantization", "HQQ quantization")
    return Program("LLaMA-Factory", right, values, parser.get_train_args, later)


def refusal(program: Program, given: dict[str, Any]) -> str | None:
    """Return the message with which the program refuses a configuration; an empty text if it accepts it.

    None if the answer is one about this machine.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            program.validate(yaml.safe_load(yaml.safe_dump(given)))
    except (Exception, SystemExit) as error:  # noqa: BLE001  # whatever it raises is its answer
        message = " ".join(f"{type(error).__name__}: {error}".split())
        return None if any(word in message.lower() for word in _MACHINE) else message
    return ""


def sweep(program: Program, count: int, chance: random.Random) -> Counter[str]:
    """Return how often kbitlint and the program agree, printing each difference."""
    keys = sorted(name for name, values in program.values.items() if values)
    found: Counter[str] = Counter()
    file = Path(tempfile.mkdtemp()) / "recipe.yaml"
    for _ in range(count):
        further = {name: chance.choice(program.values[name]) for name in chance.sample(keys, chance.randint(2, 7))}
        given = {**program.right, **further}
        refused = refusal(program, given)
        if refused is None:
            found["of the machine"] += 1
            continue
        file.write_text(yaml.safe_dump(given), encoding="utf-8")
        errors = [one for one in kbitlint.check(str(file)).violations if one.severity is Severity.ERROR]
        if not refused:
            errors = [one for one in errors if not any(part in one.message for part in program.beyond_validation)]
        outcome = f"{'refused' if refused else 'accepted'}, {'an error' if errors else 'no error'}"
        found[outcome] += 1
        if bool(refused) != bool(errors):
            print(f"{program.name}: {further}: {refused[:200] or errors[0].message}", flush=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--configurations", type=int, default=1_000, help="of each program")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    programs = (axolotl(), llamafactory())
    logging.disable(logging.CRITICAL)
    goals = []
    for program in programs:
        found = sweep(program, options.configurations, random.Random(f"{options.seed} {program.name}"))  # noqa: S311  # a seed repeats it
        refused = found["refused, an error"] + found["refused, no error"]
        accepted = found["accepted, an error"] + found["accepted, no error"]
        named = found["refused, an error"] / max(1, refused)
        goals.append(
            Goal(f"{program.name}: {refused} refused configurations that have an error", named, 0.97, "%", at_least=True)
        )
        goals.append(Goal(f"{program.name}: errors on accepted ones", found["accepted, an error"], 0, "", of=accepted))
    return leave(goals, options.json)


if __name__ == "__main__":
    sys.exit(main())
