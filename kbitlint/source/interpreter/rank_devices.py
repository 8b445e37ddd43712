"""Calls that may choose the device of a process, before which every rank of a run loads onto its first one."""

from __future__ import annotations

import functools

#: libraries and builtins whose functions choose no device, unless a name below does
_NAMES = (
    "transformers datasets peft torch bitsandbytes os sys json logging random numpy argparse yaml pathlib wandb "
    "huggingface_hub dotenv time warnings math re evaluate pandas collections functools itertools typing gc copy csv sklearn "
    "tqdm print len int str list dict float bool open isinstance getattr hasattr range min max sum round sorted set"
)
_LEAVES = frozenset(_NAMES.split())
#: functions and classes of these libraries that do: transformers 5.23, ``TrainingArguments.__post_init__``
_CHOOSES = frozenset(("set_device", "set_device_index", "device", "init_process_group", "spawn"))
_CHOOSE = ("Arguments", "ArgumentParser", "Trainer")


@functools.lru_cache(maxsize=1_024)
def may_choose_device(name: str) -> bool:
    """Return whether a function or class may set the current device: ``transformers.TrainingArguments``."""
    library = name.partition(".")[0]
    if name == "argparse.ArgumentParser" or (library == "trl" and not name.endswith(("Config", "Parser", "Trainer"))):
        return False
    return library not in _LEAVES or name.rpartition(".")[2] in _CHOOSES or name.endswith(_CHOOSE)
