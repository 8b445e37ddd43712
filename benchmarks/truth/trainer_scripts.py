"""The recipes of TRL's trainers as scripts, as a user would write them: for rehearsals."""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING, Any

import tiny  # on the path since ``trainers`` was imported
import trl_trainers  # see above

if TYPE_CHECKING:
    from pathlib import Path

_SCRIPT = """\
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoTokenizer, BitsAndBytesConfig, {auto}
from {module} import {trainer}
from {config_module} import {config}

{reward}
quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
model = {auto}.from_pretrained(
    "base", quantization_config=quantization, device_map={{"": "cpu"}}, dtype=torch.bfloat16
)
lora = LoraConfig(target_modules="all-linear"{task})
{adapt}trainer = {trainer}(
    model=model,
    args={config}({options}),
    train_dataset=Dataset.from_list([{row!r}] * 4),
    processing_class=AutoTokenizer.from_pretrained("base"),
{arguments})
trainer.train()
"""


def place(name: str, folder: Path, family: str) -> Path:
    """Write the script of a trainer into a folder, as ``train.py`` beside its base model. Return the file."""
    base = tiny.checkpoint(family)
    trl_trainers.tokenizer(of_bytes=name in trl_trainers.OF_BYTES).save_pretrained(base)
    (folder / "base").symlink_to(base)
    file = folder / "train.py"
    file.write_text(script(name, family))
    return file


def script(name: str, family: str) -> str:
    """Return the script of a trainer's recipe."""
    row, arguments, options = trl_trainers.RECIPES[name]
    cls = trl_trainers.classes()[name]
    config = name.split(maxsplit=1)[0].replace("Trainer", "Config")
    holders: Any = (base.__module__ for base in cls.__mro__ if config in vars(sys.modules[base.__module__]))
    auto = "AutoModelForSequenceClassification" if "reward" in family else "AutoModelForCausalLM"
    given = {"max_steps": 2, "per_device_train_batch_size": 2, "bf16": True, "use_cpu": True, "report_to": [], **options}
    adapts = name in trl_trainers.UNADAPTED
    lines = {key: _argument(key, auto) for key in arguments} | ({} if adapts else {"peft_config": "lora"})
    return _SCRIPT.format(
        auto=auto,
        module=cls.__module__,
        trainer=cls.__name__,
        config_module=next(holders),
        config=config,
        reward=inspect.getsource(trl_trainers.reward) if "reward_funcs" in arguments else "",
        options=", ".join(['output_dir="out"', *(f"{key}={value!r}" for key, value in given.items())]),
        row=row,
        task=', task_type="SEQ_CLS"' if "reward" in family else "",
        adapt="model = get_peft_model(model, lora)\n" if adapts else "",
        arguments="".join(f"    {key}={value},\n" for key, value in lines.items()),
    )


def _argument(key: str, auto: str) -> str:
    return "reward" if key == "reward_funcs" else f'{auto}.from_pretrained("base", dtype=torch.bfloat16)'
