"""One row for each program that a file configures: how its keys read as the calls that it makes.

A program that is added here is read by ``kbitlint.source.configs.collect`` as the others are.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Program:
    """A program that is configured by a file."""

    name: str
    marks: tuple[str, ...]
    """Keys of which it takes some, and others do not."""
    least: int
    """How many of them tell."""
    seeds: tuple[str, ...]
    """Keys of which at least one is in each file that matters: a file without any in its bytes is not parsed."""
    model: str = ""
    """The key that names the checkpoint."""
    trainer: str = ""
    """The Trainer that it runs; nothing is trained where it is empty."""
    adapter: str = ""
    """The key that asks for adapters."""
    not_adapters: tuple[object, ...] = (None, False, "")
    """Values of that key that ask for none."""
    adapts_by_default: bool = False
    """Whether it attaches adapters where the key is missing; then no verdict rests on whether there are any."""
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
    passes: tuple[str, ...] = ("load_in_4bit", "load_in_8bit", "llm_int8_has_fp16_weight", "bnb_4bit_quant_storage")
    """Keys that are arguments of its ``BitsAndBytesConfig`` under the same name."""


PROGRAMS: tuple[Program, ...] = (
    Program(
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
        ("load_in_4bit", "load_in_8bit", "gradient_checkpointing", "activation_checkpointing"),
        "base_model",
        "transformers.Trainer",
        adapter="adapter",
        # src/axolotl/loaders/model.py, _set_quantization_config
        storage="bfloat16",
        quantization="bnb_config_kwargs",
    ),
    Program(
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
        ("quantization_bit", "finetuning_type", "gradient_checkpointing"),
        "model_name_or_path",
        "transformers.Trainer",
        adapter="finetuning_type",
        not_adapters=("full", "freeze"),
        adapts_by_default=True,
        bits="quantization_bit",
        reentry="use_reentrant_gc",
        # what Trainer makes of gradient_checkpointing reaches a method that the program has replaced
        leaves_it=("disable_gradient_checkpointing", "use_unsloth_gc", "use_unsloth", "gradient_checkpointing"),
        # src/llamafactory/model/model_utils/quantization.py: the compute dtype, "crucial for fsdp+qlora"
        storage="bfloat16",
    ),
    Program(
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
        ("use_peft", "load_in_4bit", "load_in_8bit", "gradient_checkpointing"),
        "model_name_or_path",
        "trl.SFTTrainer",
        adapter="use_peft",
    ),
    Program(
        "accelerate",
        ("compute_environment", "distributed_type", "mixed_precision", "num_processes", "machine_rank"),
        3,
        ("distributed_type",),
    ),
    Program(
        "deepspeed",
        ("zero_optimization", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "optimizer"),
        2,
        ("zero_optimization",),
    ),
)
