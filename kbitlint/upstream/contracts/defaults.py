"""Defaults other than None and False that conditions of the rows depend on, by class. A test compares each."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kbitlint.facts.values import Value

_PEFT: dict[str, dict[str, Value]] = {
    "peft.DeloraConfig": {"r": 8},
    "peft.PeanutConfig": {"r": 32},
    "peft.PsoftConfig": {"r": 32, "psoft_svd": "full", "psoft_svd_lowrank_niter": 10, "num_cayley_neumann_terms": 5},
    "peft.TinyLoraConfig": {"r": 2, "u": 64},
    "peft.UniLoraConfig": {"r": 4},
    "peft.GraloraConfig": {"gralora_k": 2, "r": 32},
    "peft.LoraConfig": {"lora_dropout": 0.0, "init_lora_weights": True, "r": 8, "lora_alpha": 8, "bias": "none"},
    "peft.AdaLoraConfig": {"r": 8, "init_lora_weights": True, "orth_reg_weight": 0.5, "tinit": 0, "tfinal": 0},
    "peft.BOFTConfig": {"boft_block_size": 4, "boft_block_num": 0},
    "peft.OFTConfig": {"r": 0, "oft_block_size": 32},
    "peft.PromptTuningConfig": {"prompt_tuning_init": "RANDOM"},
    "peft.RoadConfig": {"variant": "road_1", "group_size": 64},
}
_TRAINING: dict[str, Value] = {
    "save_strategy": "steps",
    "eval_strategy": "no",
    "save_steps": 500,
    "hub_strategy": "every_save",
    "logging_strategy": "steps",
    "logging_steps": 500,
    "lr_scheduler_type": "linear",
    "warmup_steps": 0,
    "dataloader_num_workers": 0,
    "optim": "adamw_torch_fused",
    "learning_rate": 5e-5,
    "max_steps": -1,
    "gradient_accumulation_steps": 1,
    "per_device_train_batch_size": 8,
    "per_device_eval_batch_size": 8,
}
_TRL: dict[str, Value] = {**_TRAINING, "logging_steps": 10, "learning_rate": 1e-6}
_TRANSFORMERS: dict[str, dict[str, Value]] = {
    "transformers.BitsAndBytesConfig": {
        "load_in_4bit": False,
        "load_in_8bit": False,
        "llm_int8_enable_fp32_cpu_offload": False,
        "llm_int8_has_fp16_weight": False,
        "bnb_4bit_use_double_quant": False,
        "bnb_4bit_quant_type": "fp4",
        "llm_int8_threshold": 6.0,
    },
    "transformers.GPTQConfig": {"group_size": 128, "damp_percent": 0.1},
    "transformers.QuantoConfig": {"weights": "int8"},
    "transformers.EetqConfig": {"weights": "int8"},
    "transformers.TrainingArguments": _TRAINING,
    "transformers.Seq2SeqTrainingArguments": _TRAINING,
    "trl.SFTConfig": {**_TRL, "learning_rate": 2e-5, "max_length": 1024},
    "trl.DPOConfig": {**_TRL, "disable_dropout": True, "loss_type": ("sigmoid",), "label_smoothing": 0.0},
    "trl.KTOConfig": {**_TRL, "disable_dropout": True, "loss_type": "kto", "per_device_train_batch_size": 8},
    "trl.RewardConfig": {**_TRL, "disable_dropout": True, "learning_rate": 1e-4},
    "trl.GRPOConfig": {**_TRL, "num_generations": 8, "beta": 0.0},
    "trl.RLOOConfig": {**_TRL, "num_generations": 2, "beta": 0.05},
    "trl.DistillationConfig": {**_TRL, "beta": 1.0},
}
_PROGRAMS: dict[str, dict[str, Value]] = {
    "llamafactory.train": {"finetuning_type": "lora", "stage": "sft", "quantization_method": "bnb"},
    "swift.sft": {"tuner_type": "lora", "per_device_train_batch_size": 1, "num_generations": 8},
}
DEFAULTS: Mapping[str, Mapping[str, Value]] = {**_PEFT, **_TRANSFORMERS, **_PROGRAMS}
