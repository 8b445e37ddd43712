"""Effects that calls of transformers, peft, trl and accelerate have on a model in training, as data by version.

Verified by execution with torch 2.13, transformers 5.23, peft 0.21, trl 1.16 and accelerate 1.15. Different
behaviour of transformers 4 has rows of its own.
"""

from __future__ import annotations

from kbitlint.facts.reentry import Reentry
from kbitlint.facts.source import Action
from kbitlint.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """A call that sets up the checkpointing of layers."""

    kwargs: str = ""
    """The argument that contains ``use_reentrant``; empty if there is none."""
    missing: Reentry = Reentry.UNSET
    """The value of ``use_reentrant`` if the call does not pass that argument."""
    empty: Reentry = Reentry.UNSET
    """The value of ``use_reentrant`` if the call passes the argument without it."""
    switch: str = ""
    """The argument that switches checkpointing on; empty if the call always does."""
    on: bool = True
    """The default of that argument."""
    hooks: int = 0
    """Number of hooks that the call installs on the embeddings in any case."""
    reentrant_hooks: int = 0
    """Number of further hooks if the checkpoint is reentrant."""


@dataclass(frozen=True, slots=True)
class Api:
    """A function, method or class of a library, with the effect of a call."""

    name: str
    library: str
    action: Action | None = None
    """The effect on the model; None if there is none."""
    parameters: tuple[str, ...] = ()
    """The names of positional parameters, without ``self``."""
    checkpoints: Checkpoints | None = None
    since: str = ""
    """The first version with this behaviour; empty for any."""
    until: str = ""
    """The first version with another behaviour; empty if there is none."""
    returns: tuple[str, ...] = ()
    """The names of the returned values: arguments of these names come back. Empty if the model alone comes back."""


#: ends of the names of PEFT's models, which a script may construct itself
_TASKS = ("CausalLM", "SequenceClassification", "TokenClassification", "QuestionAnswering", "Seq2SeqLM", "FeatureExtraction")
FUNCTIONS: tuple[Api, ...] = (
    # Freezes every parameter, casts 16-bit ones to float32, and passes `{}` on if no kwargs are given. PEFT's own
    # enable_input_require_grads is the second hook (peft/utils/other.py).
    Api(
        "peft.prepare_model_for_kbit_training",
        "peft",
        Action.PREPARE,
        ("model", "use_gradient_checkpointing", "gradient_checkpointing_kwargs", "auto_clear_cache"),
        Checkpoints("gradient_checkpointing_kwargs", switch="use_gradient_checkpointing", hooks=1, reentrant_hooks=1),
    ),
    Api(
        "peft.prepare_model_for_int8_training",
        "peft",
        Action.PREPARE,
        ("model", "use_gradient_checkpointing"),
        Checkpoints(switch="use_gradient_checkpointing", hooks=1, reentrant_hooks=1),
        until="0.10",
    ),
    Api(
        "peft.get_peft_model",
        "peft",
        Action.ATTACH,
        ("model", "peft_config", "adapter_name", "mixed", "autocast_adapter_dtype", "revision", "low_cpu_mem_usage"),
    ),
    *(
        Api(f"peft.{name}", "peft", Action.ATTACH, ("model", "peft_config", "adapter_name", "autocast_adapter_dtype"))
        for name in ("PeftModel", *(f"PeftModelFor{task}" for task in _TASKS))
    ),
    Api(
        "peft.inject_adapter_in_model",
        "peft",
        Action.ATTACH,
        ("peft_config", "model", "adapter_name", "low_cpu_mem_usage", "state_dict"),
    ),
    # peft/utils/other.py: gives new data to every parameter, packed ones too
    Api("peft.cast_mixed_precision_params", "peft", Action.CAST, ("model", "dtype")),
    Api(
        "peft.PeftModel.from_pretrained",
        "peft",
        Action.LOAD_ADAPTERS,
        ("model", "model_id", "adapter_name", "is_trainable", "config", "autocast_adapter_dtype"),
    ),
    # trl/models/utils.py and trl/chat_template_utils.py: both add tokens to the tokenizer and resize the embeddings
    Api(
        "trl.setup_chat_format",
        "trl",
        Action.RESIZE,
        ("model", "tokenizer", "format", "resize_to_multiple_of"),
        returns=("model", "tokenizer"),
    ),
    Api(
        "trl.clone_chat_template",
        "trl",
        Action.RESIZE,
        ("model", "tokenizer", "source_tokenizer_path", "resize_to_multiple_of"),
        returns=("model", "tokenizer", "added_tokens"),
    ),
    Api("torch.apply_activation_checkpointing", "torch", Action.CONTEXT, ("model", "checkpoint_wrapper_fn", "check_fn")),
    # unsloth/models/llama.py: attaches LoRA, and prepares the model itself
    Api(
        "unsloth.get_peft_model",
        "unsloth",
        Action.ATTACH,
        ("model", "r", "target_modules", "lora_alpha", "lora_dropout", "bias", "layers_to_transform", "layers_pattern"),
    ),
    Api("transformers.BitsAndBytesConfig", "transformers", parameters=("load_in_8bit", "load_in_4bit")),
    Api("transformers.TorchAoConfig", "transformers", parameters=("quant_type",)),
    Api(
        "diffusers.PipelineQuantizationConfig",
        "diffusers",
        parameters=("quant_backend", "quant_kwargs", "components_to_quantize", "quant_mapping"),
    ),
    Api("lightning.BitsandbytesPrecision", "lightning", parameters=("mode", "dtype", "ignore_modules")),
)

METHODS: tuple[Api, ...] = (
    Api(
        "gradient_checkpointing_enable",
        action=Action.CHECKPOINT,
        parameters=("gradient_checkpointing_kwargs",),
        checkpoints=Checkpoints("gradient_checkpointing_kwargs", missing=Reentry.NO, hooks=1),
        library="transformers",
        since="5",
    ),
    Api(
        "gradient_checkpointing_enable",
        action=Action.CHECKPOINT,
        parameters=("gradient_checkpointing_kwargs",),
        checkpoints=Checkpoints("gradient_checkpointing_kwargs", missing=Reentry.YES),
        library="transformers",
        until="5",
    ),
    Api(
        "activation_checkpointing_enable",
        action=Action.CHECKPOINT,
        parameters=("activation_checkpointing_kwargs", "every_n_layers", "offload"),
        checkpoints=Checkpoints("activation_checkpointing_kwargs", missing=Reentry.NO, hooks=1),
        library="transformers",
        since="5",
    ),
    Api("enable_input_require_grads", "transformers", Action.HOOK),
    Api("resize_token_embeddings", "transformers", Action.RESIZE, ("new_num_tokens",)),
    Api("merge_and_unload", "peft", Action.MERGE),
    Api("merge_adapter", "peft", Action.MERGE),
    Api("load_adapter", "peft", Action.LOAD_ADAPTERS, ("model_id", "adapter_name", "is_trainable")),
    Api("add_adapter", "transformers", Action.ATTACH, ("peft_config", "adapter_name")),
)


#: functions that a release removed, with the one that replaces them
RENAMED = {"peft.prepare_model_for_int8_training": "peft.prepare_model_for_kbit_training"}


@dataclass(frozen=True, slots=True)
class Arguments:
    """A class of training arguments, with its defaults."""

    checkpointing: bool = False
    bf16: bool = False


TRAINING_ARGUMENTS: dict[str, Arguments] = {
    "transformers.TrainingArguments": Arguments(),
    "transformers.Seq2SeqTrainingArguments": Arguments(),
    # trl/trainer/base_config.py: both default to on
    **{
        f"trl.{name}Config": Arguments(checkpointing=True, bf16=True)
        for name in ("SFT", "DPO", "KTO", "Reward", "GRPO", "RLOO", "ORPO", "CPO", "OnlineDPO", "GKD", "PRM")
    },
}


#: arguments of these classes that are True or False, and decide a verdict
TRAINING_SWITCHES = frozenset({"gradient_checkpointing", "fp16", "bf16", "ddp_find_unused_parameters"})


@dataclass(frozen=True, slots=True)
class TrainerApi:
    """A class that trains a model."""

    parameters: tuple[str, ...]
    arguments: str
    """The class of its arguments if the call passes none."""
    attaches: bool = False
    """Whether it attaches adapters if ``peft_config`` is passed."""
    adapter_dtype: str | None = None
    """The dtype to which it casts the adapters of a quantized model; None if it does not cast them."""


_SFT = ("model", "args", "data_collator", "train_dataset", "eval_dataset")
TRAINERS: dict[str, TrainerApi] = {
    "transformers.Trainer": TrainerApi(_SFT, "transformers.TrainingArguments"),
    "transformers.Seq2SeqTrainer": TrainerApi(_SFT, "transformers.Seq2SeqTrainingArguments"),
    # trl/trainer/sft_trainer.py: "the PEFT adapter weights are converted to bf16"
    "trl.SFTTrainer": TrainerApi(_SFT, "trl.SFTConfig", attaches=True, adapter_dtype="bfloat16"),
    **{
        f"trl.{name}Trainer": TrainerApi(parameters, f"trl.{name}Config", attaches=True, adapter_dtype="bfloat16")
        for name, parameters in {
            "DPO": ("model", "ref_model", "args"),
            "KTO": ("model", "ref_model", "args"),
            "Reward": ("model", "args"),
            "GRPO": ("model", "reward_funcs", "args"),
            "RLOO": ("model", "reward_funcs", "args"),
            "ORPO": ("model", "args"),
            "CPO": ("model", "args"),
            "OnlineDPO": ("model", "ref_model", "args"),
            "GKD": ("model", "teacher_model", "args"),
            "PRM": ("model", "args"),
        }.items()
    },
}

#: classes that run a module of the file in a way of their own; only their arguments are known
RUNNERS = ("lightning.Trainer", "lightning.Fabric")

#: packages that replace the loading, checkpointing and training of models; no row describes them
FOREIGN = ("unsloth", "llmfoundry", "axolotl", "swift", "llamafactory", "xtuner", "fastNLP", "nemo", "paddlenlp", "colossalai")

#: packages whose part in a training is not judged, by the name of their import
UNJUDGED = (
    *(name for name in FOREIGN if name != "unsloth"),
    *("torchtune", "autotrain", "ludwig", "llm_studio", "litgpt", "nemo_automodel", "openrlhf", "verl", "mmengine"),
    *("diffusers", "sentence_transformers"),
)

#: functions that return the same model, unchanged or wrapped for the run
WRAPPERS = {
    "torch.DistributedDataParallel": "ddp",
    "torch.FullyShardedDataParallel": "fsdp",
    "torch.compile": "compile",
    "torch.DataParallel": "dp",
    "deepspeed.initialize": "deepspeed",
}

#: methods of a model that change no modelled state and whose result is not used
LOOKS_AT_MODEL = (
    "generate",
    "save_pretrained",
    "push_to_hub",
    "state_dict",
    "print_trainable_parameters",
    "named_modules",
    "modules",
    "children",
    "named_children",
    "buffers",
    "num_parameters",
    "zero_grad",
    "register_forward_hook",
    "get_input_embeddings",
    "get_output_embeddings",
    "get_nb_trainable_parameters",
    "get_memory_footprint",
    "create_or_update_model_card",
    "add_model_tags",
    "can_generate",
    "floating_point_ops",
    "set_attn_implementation",
    "warn_if_padding_and_no_attention_mask",
)

#: methods that unsloth adds to its models; each saves the merged weights, or converts them
UNSLOTH_METHODS = ("save_pretrained_merged", "push_to_hub_merged", "save_pretrained_gguf", "push_to_hub_gguf")

#: methods that return the model and change no other modelled state
KEEPS_MODEL = (
    "to",
    "cuda",
    "cpu",
    "get_base_model",
    "get_model",
    "unwrap_model",
    "eval",
    "train",
    "half",
    "float",
    "bfloat16",
    "requires_grad_",
    "compile",
    "tie_weights",
)
