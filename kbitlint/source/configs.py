"""Training configurations of axolotl, LLaMA-Factory, TRL, accelerate and DeepSpeed, as the same facts as scripts.

A program's keys stand for calls that it makes: what is known of them is data, and rules that look at a
``BitsAndBytesConfig`` or at ``TrainingArguments`` see one here too, with the places of the keys.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kbitlint.source.effects import Trail
from kbitlint.source.facts import Action, Checkpointing, Path, SourceFacts
from kbitlint.source.frameworks import TRAINERS
from kbitlint.source.objects import Given, Items, Known, Net, Trainer, frozen
from kbitlint.source.suppressions import ignores
from kbitlint.source.trees import json_items, yaml_items
from kbitlint.source.values import UNKNOWN, Argument, Call, Reentry
from kbitlint.source.versions import installed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path as FilePath


@dataclass(frozen=True, slots=True)
class Dialect:
    """A program that is configured by a file, and how its keys read as the calls that it makes."""

    name: str
    marks: tuple[str, ...]
    """Keys of which it takes some, and others do not."""
    least: int
    """How many of them tell."""
    trainer: str = ""
    """The Trainer that it runs; nothing is trained where it is empty."""
    adapter: str = ""
    """The key that asks for adapters."""
    not_adapters: tuple[object, ...] = (None, False, "")
    """Values of that key that ask for none."""
    bits: str = ""
    """The key that says in how many bits the base is loaded, where there is one."""
    reentry: str = ""
    """The key for its own use of the checkpoint function, reentrant unless told otherwise, where it has one."""
    leaves_it: tuple[str, ...] = ()
    """Keys that make it use another one, or none."""
    storage: str | None = None
    """The dtype that it stores packed weights as, where it passes one itself."""
    quantization: str = ""
    """The key of further arguments for its ``BitsAndBytesConfig``, where it has one."""


DIALECTS: tuple[Dialect, ...] = (
    Dialect(
        "axolotl",
        (
            "base_model",
            "adapter",
            "load_in_4bit",
            "load_in_8bit",
            "micro_batch_size",
            "datasets",
            "sequence_len",
            "val_set_size",
        ),
        3,
        "transformers.Trainer",
        adapter="adapter",
        # src/axolotl/loaders/model.py, _set_quantization_config
        storage="bfloat16",
        quantization="bnb_config_kwargs",
    ),
    Dialect(
        "llamafactory",
        (
            "stage",
            "finetuning_type",
            "template",
            "quantization_bit",
            "do_train",
            "lora_target",
            "use_reentrant_gc",
            "cutoff_len",
        ),
        3,
        "transformers.Trainer",
        adapter="finetuning_type",
        not_adapters=("full", "freeze"),
        bits="quantization_bit",
        reentry="use_reentrant_gc",
        # what Trainer makes of gradient_checkpointing reaches a method that the program has replaced
        leaves_it=("disable_gradient_checkpointing", "use_unsloth_gc", "use_unsloth", "gradient_checkpointing"),
        # src/llamafactory/model/model_utils/quantization.py: the compute dtype, "crucial for fsdp+qlora"
        storage="bfloat16",
    ),
    Dialect(
        "trl",
        (
            "model_name_or_path",
            "use_peft",
            "load_in_4bit",
            "lora_r",
            "lora_target_modules",
            "dataset_name",
            "torch_dtype",
            "dtype",
        ),
        2,
        "trl.SFTTrainer",
        adapter="use_peft",
    ),
    Dialect("accelerate", ("compute_environment", "distributed_type", "mixed_precision", "num_processes", "machine_rank"), 3),
    Dialect(
        "deepspeed", ("zero_optimization", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "optimizer"), 2
    ),
)

_MARKS = tuple(
    mark.encode()
    for mark in (
        "load_in_4bit",
        "load_in_8bit",
        "gradient_checkpointing",
        "activation_checkpointing",
        "quantization_bit",
        "finetuning_type",
        "zero_optimization",
        "distributed_type",
        "use_peft",
    )
)


def worth_parsing(content: bytes) -> bool:
    """Whether a file can be a training configuration."""
    return any(mark in content for mark in _MARKS)


def collect(
    file: str, text: str, suffix: str, versions: Mapping[str, str] | None = None, beside: FilePath | None = None
) -> SourceFacts | None:
    """The facts of a configuration; None where it configures no model's training. Raises ConfigurationError."""
    root = json_items(text) if suffix == ".json" else yaml_items(text)
    if root is None:
        return None
    dialect = next((d for d in DIALECTS if sum(key in root.items for key in d.marks) >= d.least), None)
    if dialect is None or not dialect.trainer:
        return None  # how a launcher starts processes says nothing about a model: --training hands it to a check of one
    versions = installed() if versions is None else versions
    trail = Trail(versions, beside=beside)
    path, calls = _trained(dialect, root, trail)
    return SourceFacts(
        file,
        text,
        calls=calls,
        paths=(path,),
        versions=versions,
        dialect=dialect.name,
        ignores=ignores(text) if suffix != ".json" else (),
    )


def _trained(dialect: Dialect, root: Items, trail: Trail) -> tuple[Path, tuple[Call, ...]]:
    """The load, the adapters and the training that the keys ask for."""
    api = TRAINERS[dialect.trainer]
    quantization = _quantization(dialect, root)
    load = _part(root, "transformers.AutoModelForCausalLM.from_pretrained", ("device_map", "dtype", "torch_dtype"))
    name = root.items.get("base_model") or root.items.get("model_name_or_path")
    if name is not None:
        load.items["pretrained_model_name_or_path"] = name
    bits = 4 if _is_true(quantization, "load_in_4bit") else 8 if _is_true(quantization, "load_in_8bit") else None
    if bits is not None:
        load.items["quantization_config"] = Given(quantization, quantization.span, quantization.span)
    said = root.get(dialect.bits) if dialect.bits else UNKNOWN
    if isinstance(said, Known) and said.value in (4, 8):
        quantization.items[f"load_in_{said.value}bit"] = Given(Known(True), *2 * (root.items[dialect.bits].whole,))  # noqa: FBT003
        bits = int(said.value)
        load.items["quantization_config"] = Given(quantization, quantization.span, quantization.span)
    net = trail.load(load.frozen(trail.effort))
    if dialect.reentry:
        how = _own_checkpointing(dialect, root, trail) if bits else Checkpointing(None)
        hooks = () if how.by is None else (how.by,)  # its function makes the layers' inputs require grad
        net.state = dataclasses.replace(net.state, checkpointing=how, hooks=hooks)
    arguments = Items(api.arguments, dict(root.items), span=root.span, style=root.style, tail=root.tail)
    asked = root.items.get(dialect.adapter)
    trainer = Trainer(Call(dialect.name, root.span), net, arguments, api)
    if asked is None and dialect.reentry:
        net.state = dataclasses.replace(net.state, certain=False)  # its default decides
    elif asked is not None and frozen(asked.value, trail.effort) not in dialect.not_adapters:
        _attach(trail, net, root, asked)
        if bits and api.adapter_dtype:
            _cast_adapters(net, api.adapter_dtype)
    trail.step(Action.TRAINER, trainer.call, net, net.state)
    trail.finish(trainer)
    # axolotl computes in the dtype of its bf16 and fp16 keys, TRL in that of dtype: no compute dtype is missing
    return trail.path(), (root.frozen(trail.effort), arguments.frozen(trail.effort))


def _quantization(dialect: Dialect, root: Items) -> Items:
    """The quantization config that a program makes of its keys."""
    names = ("load_in_4bit", "load_in_8bit", "llm_int8_has_fp16_weight", "bnb_4bit_quant_storage")
    made = _part(root, "transformers.BitsAndBytesConfig", names)
    if dialect.storage is not None:
        made.items["bnb_4bit_quant_storage"] = Given(Known(dialect.storage), root.span, root.span)
    further = root.get(dialect.quantization) if dialect.quantization else UNKNOWN
    if isinstance(further, Items):
        made.items.update(further.items)
    return made


def _own_checkpointing(dialect: Dialect, root: Items, trail: Trail) -> Checkpointing:
    """How a program that binds the checkpoint function itself does it."""
    said = root.get(dialect.reentry) if dialect.reentry in root.items else Known(True)  # noqa: FBT003  # the program's default
    if any(key in root.items for key in dialect.leaves_it) or not isinstance(said, Known):
        return Checkpointing(None)
    reentry = Reentry.YES if said.value is True else Reentry.NO if said.value is False else Reentry.UNKNOWN
    return Checkpointing(
        enabled=True,
        reentry=reentry,
        by=dataclasses.replace(root.frozen(trail.effort), callee=dialect.name),
        flag=dialect.reentry,
    )


def _attach(trail: Trail, net: Net, root: Items, asked: Given) -> None:
    from kbitlint.source.frameworks import FUNCTIONS

    api = next(item for item in FUNCTIONS if item.name == "peft.get_peft_model")
    config = Items("peft.LoraConfig", {}, complete=False, span=root.span, style=root.style)
    call = Call(api.name, asked.whole, (Argument("peft_config", config.frozen(trail.effort), asked.span, asked.whole),))
    trail.apply(api, call, net)


def _cast_adapters(net: Net, dtype: str) -> None:
    if net.state.adapters is not None:
        net.state = dataclasses.replace(net.state, adapters=dataclasses.replace(net.state.adapters, dtype=dtype))


def _part(root: Items, callee: str, names: tuple[str, ...]) -> Items:
    """Some keys as the arguments of a call."""
    return Items(callee, {n: root.items[n] for n in names if n in root.items}, span=root.span, style=root.style, tail=root.tail)


def _is_true(items: Items, name: str) -> bool:
    return items.get(name) == Known(True)  # noqa: FBT003  # a value of the file
