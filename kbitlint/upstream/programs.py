"""Programs that a configuration file controls, one row each: the calls that its keys stand for.

``kbitlint.source.configs.collect`` reads every row, so a new program needs only a row here. It reads top-level keys, and
takes those that are no setting of the program for arguments of its Trainer. The first row whose marks fit wins.
"""

from __future__ import annotations

import functools
import re

from kbitlint.lazy_dataclass import dataclass


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
    """The key that loads the base in 4 or 8 bits; empty if there is none."""
    bits_values: tuple[tuple[object, int], ...] = ((4, 4), (8, 8))
    """(value of that key, the bits that it means). A word may mean bits too, such as ``nf4`` or ``qlora``."""
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
    lora: tuple[tuple[str, str], ...] = ()
    """(key, argument of ``LoraConfig``) of each key that sets one."""
    divides: tuple[str, ...] = ()
    """Keys for adapters whose text the program divides at commas."""
    renames: tuple[tuple[str, str], ...] = ()
    """(key, argument of ``TrainingArguments``) of each key with another name."""
    quantizes_with: tuple[tuple[str, str], ...] = ()
    """(value of the key for adapters, the only key for bits that it heeds); empty if adapters do not matter."""
    bits_method: tuple[str, tuple[object, ...]] = ("", ())
    """The key for the method of ``bits``, and its values that mean bitsandbytes; no key if there is no other method."""
    method_required: bool = False
    """Whether the program quantizes only if that key is in the file."""
    half_by_flag: bool = True
    """Whether ``fp16: true`` or ``float16: true`` is also the dtype in which the program loads the model."""
    checkpoints: bool = False
    """Whether the program checkpoints by default, with a choice of ``use_reentrant`` of its own."""
    own_arguments: bool = False
    """Whether the program makes the Trainer's arguments from keys of its own, so that their checks do not apply."""
    adds: str = ""
    """The key for tokens that the program adds to tokenizer and embeddings, and trains only as adapters say; empty if none."""
    exports: str = ""
    """A key of files that merge and save a model instead of training it; empty if the program has no such files."""
    verb: str = "train"
    """The last part of the name under which ``upstream/contracts`` lists what its validators refuse."""
    needs: tuple[str, ...] = ()
    """Keys of which every file of the program has one; empty if there is none. Others share its further keys."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """A kind of configuration file that is recognized and not judged."""

    name: str
    """The program, as reports name it."""
    signs: tuple[re.Pattern[str], ...]
    """Patterns that together only files of this program contain."""


#: command of TRL's program -> the trainer that it runs
TRL_COMMANDS = {name.lower(): f"trl.{name}Trainer" for name in ("SFT", "DPO", "KTO", "GRPO", "Reward", "RLOO")}

#: strings of which every file of such a program contains one
RECIPE_SEEDS: tuple[bytes, ...] = (
    *(b"_component_", b"nemo_automodel", b"actor_rollout_ref", b"model_type: llm", b"backbone_dtype", b"quantize:"),
    *(b"task: llm", b"task: seq2seq", b"task: text", b"task: vlm", b"task: sentence", b"actor_num_nodes", b"vllm_num_engines"),
    b"q_lora",
)


@functools.cache
def recipes() -> tuple[Recipe, ...]:
    """Return the recipes; most runs need none of their patterns."""
    return (
        Recipe("torchtune", (re.compile(r"_component_:[ \t]*torchtune\."),)),
        Recipe("NeMo AutoModel", (re.compile(r"_target_:[ \t]*nemo_automodel\."),)),
        Recipe("verl", (re.compile(r"^actor_rollout_ref[ \t]*:", re.MULTILINE),)),
        Recipe(
            "AutoTrain",
            (
                re.compile(r"^task:[ \t]*[\"']?(?:llm|seq2seq|text|vlm|sentence)", re.MULTILINE),
                re.compile(r"^backend[ \t]*:", re.MULTILINE),
            ),
        ),
        Recipe("Ludwig", (re.compile(r"^model_type:[ \t]*llm\b", re.MULTILINE),)),
        Recipe("H2O LLM Studio", (re.compile(r"^[ \t]*backbone_dtype[ \t]*:", re.MULTILINE),)),
        Recipe("Oumi", (re.compile(r"^[ \t]*q_lora(?:_bits)?[ \t]*:", re.MULTILINE),)),
        Recipe("LitGPT", (re.compile(r"^quantize:[ \t]*[\"']?bnb\.", re.MULTILINE),)),
        Recipe("OpenRLHF", (re.compile(r"^(?:actor_num_nodes|vllm_num_engines)[ \t]*:", re.MULTILINE),)),
    )


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
        adds="tokens",
        adapter="adapter",
        # src/axolotl/loaders/model.py, _set_quantization_config
        storage="bfloat16",
        quantization="bnb_config_kwargs",
        quantizes_with=(("qlora", "load_in_4bit"), ("lora", "load_in_8bit")),
        lora=(
            ("lora_r", "r"),
            ("lora_alpha", "lora_alpha"),
            ("lora_dropout", "lora_dropout"),
            ("lora_target_modules", "target_modules"),
            ("lora_target_parameters", "target_parameters"),
            ("lora_modules_to_save", "modules_to_save"),
            ("peft_use_dora", "use_dora"),
            ("peft_use_rslora", "use_rslora"),
            ("peft_init_lora_weights", "init_lora_weights"),
            ("peft_layers_to_transform", "layers_to_transform"),
            ("peft_layers_pattern", "layers_pattern"),
        ),
        renames=(("optimizer", "optim"),),
        own_arguments=True,
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
            *("export_dir", "export_size", "adapter_name_or_path"),
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
        exports="export_dir",
        leaves_it=("disable_gradient_checkpointing", "use_unsloth_gc", "use_unsloth", "gradient_checkpointing"),
        # src/llamafactory/model/model_utils/quantization.py: the compute dtype, "crucial for fsdp+qlora"
        storage="bfloat16",
        bits_method=("quantization_method", ("bnb", "bitsandbytes")),
        lora=(
            ("lora_rank", "r"),
            ("lora_alpha", "lora_alpha"),
            ("lora_dropout", "lora_dropout"),
            ("lora_target", "target_modules"),
            ("additional_target", "modules_to_save"),
            ("use_dora", "use_dora"),
            ("use_rslora", "use_rslora"),
        ),
        # src/llamafactory/hparams/finetuning_args.py, __post_init__
        divides=("lora_target", "additional_target"),
    ),
    Program(
        "swift",
        (
            "tuner_type",
            "train_type",
            "quant_bits",
            "quant_method",
            "target_modules",
            "torch_dtype",
            "lora_rank",
            "dataset",
            "rlhf_type",
            "attn_impl",
            "template",
            "model",
            "padding_free",
        ),
        4,
        ("quant_bits", "quant_method", "tuner_type", "train_type"),
        "model",
        "transformers.Trainer",
        adapter="tuner_type",
        not_adapters=("full",),
        adapts_by_default=True,
        bits="quant_bits",
        bits_method=("quant_method", ("bnb",)),
        method_required=True,
        lora=(
            ("lora_rank", "r"),
            ("lora_alpha", "lora_alpha"),
            ("lora_dropout", "lora_dropout"),
            ("lora_bias", "bias"),
            ("modules_to_save", "modules_to_save"),
            ("use_dora", "use_dora"),
            ("use_rslora", "use_rslora"),
        ),
        exports="merge_lora",
        checkpoints=True,  # swift/trainers/mixin.py
        verb="sft",
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
        half_by_flag=False,
        adapter="use_peft",
        needs=("model_name_or_path", "use_peft"),
        lora=(
            ("lora_r", "r"),
            ("lora_alpha", "lora_alpha"),
            ("lora_dropout", "lora_dropout"),
            ("lora_target_modules", "target_modules"),
            ("lora_target_parameters", "target_parameters"),
            ("lora_modules_to_save", "modules_to_save"),
            ("lora_task_type", "task_type"),
            ("use_dora", "use_dora"),
            ("use_rslora", "use_rslora"),
        ),
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
