"""What functions and methods return: the kind of the value, read in the sources and run with the installed versions."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

MODEL = "transformers.PreTrainedModel"
PEFT_MODEL = "peft.PeftModel"
TOKENIZER = "transformers.PreTrainedTokenizerBase"
TRAINER = "transformers.Trainer"
DATASET = "datasets.Dataset"
SPLITS = "datasets.DatasetDict"
STREAM = "datasets.IterableDataset"
STREAMS = "datasets.IterableDatasetDict"
FRAME = "pandas.DataFrame"
OPTIMIZER = "torch.optim.Optimizer"
SCHEDULER = "torch.optim.lr_scheduler.LRScheduler"

#: wrappers for several devices, which have the attributes of ``torch.nn.Module`` alone
RANKED = ("torch.nn.parallel.DistributedDataParallel", "torch.nn.DataParallel")

#: what stands for the receiver, and for the first argument
SELF, FIRST = "self", "first"

_MODULE_SELF = dict.fromkeys(
    ("train", "eval", "to", "cuda", "cpu", "half", "float", "bfloat16", "requires_grad_", "double", "apply"), SELF
)
_MODULE = {**_MODULE_SELF, "zero_grad": "None", "state_dict": "dict", "register_buffer": "None"}
_PRETRAINED = {
    **_MODULE,
    "gradient_checkpointing_enable": "None",
    "gradient_checkpointing_disable": "None",
    "enable_input_require_grads": "None",
    "disable_input_require_grads": "None",
    "resize_token_embeddings": "torch.nn.Embedding",
    "get_input_embeddings": "torch.nn.Embedding",
    "save_pretrained": "None",
    "tie_weights": "None",
    "add_adapter": "None",
    "set_adapter": "None",
    "enable_adapters": "None",
    "disable_adapters": "None",
    "num_parameters": "int",
    "init_weights": "None",
}
_NEW_ROWS = (
    "map filter shuffle select sort shard rename_column rename_columns remove_columns select_columns cast "
    "cast_column with_format with_transform flatten flatten_indices add_column add_item class_encode_column "
    "align_labels_with_mapping take skip repeat"
)
_ROWS = dict.fromkeys(_NEW_ROWS.split(), DATASET)
#: what a dict of splits does for each of its splits
_OF_SPLITS = (
    "map filter shuffle sort rename_column rename_columns remove_columns select_columns cast cast_column with_format"
    " with_transform class_encode_column align_labels_with_mapping"
)
_STREAMED = ("map", "filter", "shuffle", "take", "skip", "rename_column", "rename_columns", "remove_columns", "select_columns")

#: class -> method -> the kind of what it returns
METHODS: Mapping[str, Mapping[str, str]] = {
    "torch.nn.Module": _MODULE,
    MODEL: _PRETRAINED,
    PEFT_MODEL: {
        **_PRETRAINED,
        "print_trainable_parameters": "None",
        "merge_and_unload": MODEL,
        "unload": MODEL,
        "get_base_model": MODEL,
        "merge_adapter": "None",
        "unmerge_adapter": "None",
        "delete_adapter": "None",
        "enable_adapter_layers": "None",
        "disable_adapter_layers": "None",
        "load_adapter": "",
    },
    TOKENIZER: {
        "add_tokens": "int",
        "add_special_tokens": "int",
        "save_pretrained": "tuple",
        "decode": "",
        "batch_decode": "list",
        "tokenize": "list",
        "get_vocab": "dict",
    },
    TRAINER: {
        "train": "transformers.TrainOutput",
        "evaluate": "dict",
        "predict": "transformers.PredictionOutput",
        "save_model": "None",
        "save_state": "None",
        "log_metrics": "None",
        "save_metrics": "None",
        "add_callback": "None",
        "remove_callback": "None",
    },
    DATASET: {
        **_ROWS,
        "train_test_split": SPLITS,
        "set_format": "None",
        "set_transform": "None",
        "reset_format": "None",
        "save_to_disk": "None",
        "to_dict": "dict",
        "to_list": "list",
        "to_pandas": FRAME,
        "unique": "list",
    },
    SPLITS: {
        **dict.fromkeys(_OF_SPLITS.split(), SPLITS),
        "set_format": "None",
        "set_transform": "None",
        "reset_format": "None",
        "save_to_disk": "None",
    },
    STREAM: dict.fromkeys(_STREAMED, STREAM),
    STREAMS: {name: STREAMS for name in _STREAMED if name not in ("take", "skip")},
    "accelerate.Accelerator": {
        "backward": "None",
        "wait_for_everyone": "None",
        "save_state": "",
        "load_state": "None",
        "save_model": "None",
        "init_trackers": "None",
        "end_training": "None",
        "unwrap_model": FIRST,
        "is_main_process": "",
    },
    "transformers.BatchEncoding": {"to": SELF, "copy": SELF},
    OPTIMIZER: {"zero_grad": "None"},
    SCHEDULER: {"step": "None", "get_last_lr": "list"},
    "list": dict.fromkeys(("append", "extend", "sort", "reverse", "insert", "clear", "remove"), "None"),
    "dict": {**dict.fromkeys(("update", "clear"), "None"), "copy": SELF},
}

#: function -> the kind of what it returns
FUNCTIONS: Mapping[str, str] = {
    "peft.get_peft_model": PEFT_MODEL,
    "peft.prepare_model_for_kbit_training": FIRST,
    "peft.prepare_model_for_int8_training": FIRST,
    "peft.PeftModel.from_pretrained": PEFT_MODEL,
    "datasets.concatenate_datasets": "",
    "datasets.Dataset.from_dict": DATASET,
    "datasets.Dataset.from_list": DATASET,
    "datasets.Dataset.from_pandas": DATASET,
    "datasets.Dataset.from_generator": DATASET,
    "datasets.Dataset.from_json": "",
    "accelerate.Accelerator": "accelerate.Accelerator",
    "transformers.GenerationConfig": "transformers.GenerationConfig",
    "transformers.BitsAndBytesConfig": "transformers.BitsAndBytesConfig",
    "transformers.TrainingArguments": "transformers.TrainingArguments",
    "transformers.Trainer": TRAINER,
    "transformers.Seq2SeqTrainer": TRAINER,
    "transformers.set_seed": "None",
    "transformers.get_scheduler": SCHEDULER,
    "transformers.get_linear_schedule_with_warmup": SCHEDULER,
    "transformers.get_cosine_schedule_with_warmup": SCHEDULER,
    "transformers.EarlyStoppingCallback": "transformers.TrainerCallback",
    **{f"pandas.{name}": FRAME for name in ("DataFrame", "read_csv", "read_parquet")},
    "random.shuffle": "None",
    "random.seed": "None",
    "torch.manual_seed": "",
    "print": "None",
    "dict": "dict",
    "list": "list",
    "str": "str",
    "len": "int",
    "int": "int",
    **{f"trl.{name}Trainer": f"trl.{name}Trainer" for name in ("SFT", "DPO", "GRPO", "Reward")},
    **{f"torch.optim.{name}": OPTIMIZER for name in ("AdamW", "Adam", "SGD", "Adafactor")},
    **{f"bitsandbytes.optim.{name}": OPTIMIZER for name in ("AdamW8bit", "PagedAdamW8bit", "PagedAdamW32bit", "Adam8bit")},
    "torch.utils.data.DataLoader": "torch.utils.data.DataLoader",
    **{name: name for name in RANKED},
}

#: classes of configurations: an object of them is no model, no text and no dict
CONFIGS = frozenset(
    (
        "peft.LoraConfig",
        "transformers.TrainingArguments",
        "transformers.BitsAndBytesConfig",
        "trl.SFTConfig",
        "trl.DPOConfig",
        "trl.GRPOConfig",
        "trl.RewardConfig",
        "transformers.GenerationConfig",
    )
)

#: methods that change nothing but return something new
PURE: Mapping[str, frozenset[str]] = {
    DATASET: frozenset((*_ROWS, "train_test_split")) - {"flatten", "repeat", "map", "filter"} | {"map", "filter"},
    SPLITS: frozenset(_OF_SPLITS.split()),
    STREAM: frozenset(_STREAMED),
}

#: functions and methods that return a context manager: a call without ``with`` does nothing
ENTERED = frozenset(
    (
        "PeftModel.disable_adapter",
        "Accelerator.accumulate",
        "Accelerator.autocast",
        "Accelerator.no_sync",
        "torch.no_grad",
        "torch.inference_mode",
        "torch.autocast",
        "torch.enable_grad",
        "torch.cuda.amp.autocast",
        "torch.amp.autocast",
    )
)
