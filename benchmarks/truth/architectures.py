"""Every class of transformers' auto mappings, tiny: with random weights, or on the meta device.

python -m benchmarks.truth.architectures [--task TASK]        which can be built, and how many
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import re
import sys
from typing import Any

import torch
import transformers
from transformers.utils import logging

from benchmarks.truth.tiny_configs import tiny_config

#: the tasks of most fine-tuning: task -> the Auto class whose mapping lists its architectures
COMMON = {
    "causal-lm": "AutoModelForCausalLM",
    "seq2seq": "AutoModelForSeq2SeqLM",
    "image-text-to-text": "AutoModelForImageTextToText",
    "sequence-classification": "AutoModelForSequenceClassification",
}


def _further() -> dict[str, str]:
    """Return the tasks of the other Auto classes of transformers. Heads come first, bare models and backbones last."""
    names = [name for name in dir(transformers) if re.match(r"AutoModelFor|AutoBackbone$|AutoModel$", name)]
    names.sort(key=lambda name: not name.startswith("AutoModelFor"))
    return {_task(name): name for name in names if name not in COMMON.values()}


def _task(auto: str) -> str:
    """Return the name of an Auto class's task: ``object-detection`` for ``AutoModelForObjectDetection``."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z]+(?:2[A-Z][a-z]+)?", auto.removeprefix("Auto").removeprefix("ModelFor"))
    return "-".join(words).lower()


#: task -> the Auto class whose mapping lists its architectures
TASKS = COMMON | _further()
#: the groups in which tasks are measured: those of most fine-tuning, and all others
GROUPS = {"common": tuple(COMMON), "further": tuple(name for name in TASKS if name not in COMMON)}


def tasks_of(name: str | None) -> tuple[str, ...]:
    """Return the tasks that a name on the command line means: a group, one task, or all of them without a name."""
    return tuple(TASKS) if name is None else GROUPS.get(name, (name,))


@functools.cache
def architectures(task: str) -> list[str]:
    """Return the model types of a task, sorted. Beyond the common tasks, a class counts for the first task that lists it."""
    mapping = _mapping(task)
    if task in COMMON:
        return sorted(mapping)
    earlier = {name for other in list(TASKS)[: list(TASKS).index(task)] for name in _mapping(other).values()}
    own: dict[str, str] = {}
    for model_type in sorted(mapping):
        if mapping[model_type] not in earlier:
            own.setdefault(mapping[model_type], model_type)
    return sorted(own.values())


def model_class(task: str, model_type: str) -> Any:
    """Return the class that the task's Auto class uses for a model type."""
    return getattr(transformers, _mapping(task)[model_type])


def _mapping(task: str) -> dict[str, str]:
    names = getattr(transformers, TASKS[task])._model_mapping._model_mapping  # noqa: SLF001  # the names alone, as the public mapping imports 200 modules
    return {kind: name if isinstance(name, str) else name[0] for kind, name in names.items()}


def build(task: str, model_type: str, device: str = "cpu") -> Any:
    """Return a tiny bfloat16 model: on the CPU with the same random weights each time, on meta without weights."""
    cls = model_class(task, model_type)
    config = config_for(task, model_type)
    if device == "meta":
        with torch.device("meta"):
            return cls._from_config(config, dtype=torch.bfloat16)
    torch.manual_seed(0)
    with _marked_memory():
        model = cls._from_config(config, dtype=torch.bfloat16)
    _as_if_trained(model)
    return model


def config_for(task: str, model_type: str) -> Any:
    """Return the tiny config of the task's class. A text-only class gets the text part of a composite config."""
    cls, config = model_class(task, model_type), tiny_config(model_type)
    wanted = cls.config_class
    if not isinstance(config, wanted):
        parts = (getattr(config, name) for name in ("text_config", "decoder", "thinker_config") if hasattr(config, name))
        config = next((part for part in parts if isinstance(part, wanted)), config)
    config.architectures = [cls.__name__]
    return config


@contextlib.contextmanager
def _marked_memory() -> Any:
    """Make torch fill uninitialised memory with NaN, so that ``_as_if_trained`` finds it."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@torch.no_grad()
def _as_if_trained(model: Any) -> None:
    """Replace values that no trained model has: uninitialised memory, and weights that are zero throughout.

    A gate of zero makes the gradient of every adapter behind it exactly zero, which would look like a fault.
    """
    for parameter in model.parameters():
        if parameter.is_floating_point() and not (parameter.isfinite().all() and parameter.any()):
            parameter.normal_(std=0.02)
    for buffer in model.buffers():
        if buffer.is_floating_point() and buffer.isnan().any():
            buffer.zero_()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=TASKS, help="one task only")
    options = parser.parse_args()
    logging.set_verbosity_error()
    missed = 0
    for task in [options.task] if options.task else TASKS:
        names = architectures(task)
        failed = 0
        for model_type in names:
            try:
                build(task, model_type, "meta")
            except Exception as error:  # noqa: BLE001  # any error of a constructor is a result
                failed += 1
                print(f"{task} {model_type}: {type(error).__name__}: {str(error).splitlines()[0]}", flush=True)
        print(f"{task}: {len(names) - failed} of {len(names)} architectures can be built", flush=True)
        missed += failed
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
