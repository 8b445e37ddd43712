"""Programs that a configuration file controls, one row each: the calls that its keys stand for.

``kbitlint.source.configs.collect`` reads every row, so a new program needs only a row here. It reads top-level keys, and
takes those that are no setting of the program for arguments of its Trainer. The first row whose marks fit wins.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Program:
    """A program that a configuration file controls."""

    name: str
    marks: tuple[str, ...]
    """Keys that are typical of this program's files."""
    least: int
    """Number of these keys that a file needs to count as one of this program."""
    seeds: tuple[str, ...]
    """Keys of which every relevant file has at least one. A file without any of them in its bytes is not parsed."""
    model: str = ""
    """The key for the checkpoint's name."""
    trainer: str = ""
    """The Trainer that the program runs; empty if it trains nothing."""
    adapter: str = ""
    """The key that requests adapters."""
    not_adapters: tuple[object, ...] = (None, False, "")
    """Values of that key that request none."""
    adapts_by_default: bool = False
    """Whether the program attaches adapters if the key is missing. No verdict then depends on the presence of adapters."""
    bits: str = ""
    """The key for the bits in which the base is loaded; empty if there is none."""
    reentry: str = ""
    """The key for ``use_reentrant`` of the program's own checkpoint call (default True); empty if it has none."""
    leaves_it: tuple[str, ...] = ()
    """Keys that make the program use another checkpoint function or none."""
    storage: str | None = None
    """The dtype in which the program stores packed weights; None if it does not set one."""
    quantization: str = ""
    """The key for further arguments of its ``BitsAndBytesConfig``; empty if there is none."""
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
        # the program replaces the method that Trainer calls for gradient_checkpointing
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
