"""What TRL's configs and trainers refuse or ignore: TRL 1.16, ``trl/trainer/``."""

from __future__ import annotations

from kbitlint.upstream.contracts.rows import Contract
from kbitlint.upstream.contracts.target_rows import target_rows
from kbitlint.upstream.contracts.trl_losses import LOSS_ROWS
from kbitlint.upstream.contracts.wrapped_linears import wrapped_rows

_ALL = tuple(f"trl.{name}Trainer" for name in ("SFT", "DPO", "KTO", "Reward", "GRPO", "RLOO", "Distillation"))
#: trainers that compute log-probabilities from the weight of the head
_FUSED = tuple(f"trl.{name}Trainer" for name in ("DPO", "KTO", "GRPO", "RLOO"))
_ATTACHES = (*_ALL, "trl.ORPOTrainer", "trl.CPOTrainer")
_ONLINE = ("trl.GRPOConfig", "trl.RLOOConfig")
_REFUSES_LATE = ("trl.DPOTrainer", "trl.KTOTrainer")
_IGNORES_LATE = tuple(name for name in _ALL if name not in _REFUSES_LATE)

_LATE = "quantization_config is not None and model.object"
_TRAINER_ROWS = (
    Contract(
        _ALL,
        # unsloth cuts these lines out of the trainers
        "peft_config is not None and model.adapted and not has(model.loader, 'unsloth')",
        "You passed a `PeftModel` instance together with a `peft_config` to the trainer",
        drops="peft_config",
        since="0.27",
    ),
    Contract(
        _ALL,
        "peft_config is not None and made(peft_config, 'BitsAndBytesConfig')",
        "`peft_config` must be a `peft.PeftConfig` instance",
        "TypeError",
        since="1",
    ),
    Contract(
        _ALL,
        "text(model) and quantization_config is not None and args.model_init_kwargs.quantization_config is not None",
        "You set `quantization_config` both as a trainer argument and in `args.model_init_kwargs`",
        drops="quantization_config",
        since="1.9",
    ),
    Contract(
        _REFUSES_LATE,
        _LATE,
        "You passed `quantization_config` to the trainer, but your model is already instantiated",
        drops="quantization_config",
        since="1.9",
    ),
    Contract(
        _IGNORES_LATE,
        _LATE,
        "You passed `quantization_config` to the trainer, but your model is already instantiated."
        " The `quantization_config` will be ignored",
        "",
        "quantization_config",
        since="1.9",
    ),
    Contract(
        _ALL,
        "model.object and args.model_init_kwargs is not None",
        "You passed `model_init_kwargs` to the",
        "",
        "args.model_init_kwargs",
        since="1",
    ),
    Contract(
        (*_FUSED, "trl.SFTTrainer", "trl.DistillationTrainer"),
        "('lm_head' in peft_config.target_modules or 'lm_head' in model.adapter_config.target_modules)"
        " and not has(model.loader, 'unsloth')",
        "Applying a PEFT adapter to `lm_head` is not supported",
        since="1.16",
    ),
    Contract(
        _FUSED,
        "args.sync_ref_model and (model.adapted or peft_config is not None) and not has(model.loader, 'unsloth')",
        "You passed `sync_ref_model=True` while using a PEFT model, which is currently not supported",
        "NotImplementedError",
        since="1",
    ),
    Contract(
        ("trl.DPOTrainer", "trl.KTOTrainer"),
        "args.sync_ref_model and args.precompute_ref_log_probs",
        "You cannot use `sync_ref_model=True` together with `precompute_ref_log_probs=True`",
        since="1",
    ),
    Contract(
        _ALL,
        "args.use_liger_kernel and args.liger_kernel_config.fused_linear_cross_entropy",
        '`liger_kernel_config={"fused_linear_cross_entropy": True}` is not supported',
        since="1.16",
    ),
    Contract(
        ("trl.GRPOTrainer", "trl.RLOOTrainer"),
        "args.sync_ref_model and args.beta == 0",
        "You passed `sync_ref_model=True` while `beta=0.0`, which means the reference model is not used",
        since="1",
    ),
    Contract(
        ("trl.KTOTrainer",),
        "args.per_device_train_batch_size == 1 and args.loss_type == 'kto'",
        "Actual (not effective) batch size must be > 1",
        since="1",
    ),
    Contract(
        ("trl.SFTTrainer",),
        "args.padding_free is True and data_collator is not None",
        "Passing a custom data collator is not supported when using padding-free",
        since="1",
    ),
    Contract(
        ("trl.SFTTrainer",),
        "args.padding_free is True and not args.packing and args.max_length is not None",
        "When `padding_free=True` without packing, `max_length` is not enforced",
        drops="args.padding_free",
        since="1",
    ),
    Contract(
        ("trl.SFTTrainer",),
        "formatting_func is not None and args.completion_only_loss is True",
        "A formatting function was provided while `completion_only_loss=True`, which is incompatible",
        since="0.20",
    ),
    Contract(
        ("trl.SFTTrainer",),
        "args.gradient_checkpointing is False and args.gradient_checkpointing_kwargs.selective",
        "`gradient_checkpointing_kwargs={'selective': True}` requires `gradient_checkpointing=True`",
        since="1.16",
    ),
    Contract(
        ("trl.SFTTrainer",),
        "args.gradient_checkpointing_kwargs.selective and args.gradient_checkpointing_kwargs.use_reentrant",
        "`gradient_checkpointing_kwargs={'selective': True}` requires non-reentrant gradient checkpointing",
        since="1.16",
    ),
    Contract(
        ("trl.DPOTrainer",),
        "args.padding_free is True",
        "`padding_free=True` is temporarily unavailable after a refactor and is currently disabled",
        "",
        "args",
        since="1",
    ),
)

_CONFIG_ROWS = (
    *(
        Contract(
            tuple(f"trl.{name}Config" for name in ("SFT", "DPO", "KTO", "Reward", "GRPO", "RLOO")),
            f"model_init_kwargs.{name} is not None",
            f"__init__() got an unexpected keyword argument '{name}'",
            "TypeError",
            moment="when the trainer loads the model",
            since="1",
        )
        for name in ("load_in_4bit", "load_in_8bit")
    ),
    Contract(
        _ONLINE,
        "whole(num_generations) and num_generations < 2",
        "requires at least 2 generations per prompt to calculate the advantages",
        example="num_generations=1, generation_batch_size=8, use_cpu=True",
    ),
    Contract(
        _ONLINE,
        "generation_batch_size is not None and steps_per_generation is not None",
        "'generation_batch_size' and 'steps_per_generation' can not be both configured at the same time",
        drops="steps_per_generation",
        example="generation_batch_size=8, steps_per_generation=4, use_cpu=True",
    ),
    Contract(
        _ONLINE,
        "auto_find_batch_size",
        "auto_find_batch_size is not supported by",
        drops="auto_find_batch_size",
        example="auto_find_batch_size=True, use_cpu=True",
        since="1",
    ),
    Contract(
        _ONLINE,
        "whole(generation_batch_size) and whole(num_generations) and num_generations > 1"
        " and generation_batch_size % num_generations != 0",
        "generation_batch_size () must be divisible by num_generations ()",
        example="generation_batch_size=8, num_generations=3, use_cpu=True, per_device_train_batch_size=1,"
        " gradient_accumulation_steps=3",
    ),
    Contract(  # steps_per_generation is gradient_accumulation_steps by default
        _ONLINE,
        "generation_batch_size is None and steps_per_generation is None and whole(num_generations) and num_generations > 1 "
        "and per_device_train_batch_size * gradient_accumulation_steps * processes % num_generations != 0",
        "generation_batch_size () must be divisible by num_generations ()",
        example="num_generations=8, per_device_train_batch_size=1, gradient_accumulation_steps=2, use_cpu=True",
    ),
    Contract(
        _ONLINE,
        "eval_strategy in ('steps', 'epoch') and num_generations_eval is None and whole(num_generations)"
        " and num_generations > 1 and per_device_eval_batch_size * processes % num_generations != 0",
        "must be divisible by the number of generations used for evaluation",
        example="eval_strategy='steps', per_device_eval_batch_size=3, use_cpu=True",
        since="1",
    ),
    Contract(
        ("trl.GRPOConfig",),
        "log_completions_hub_repo is not None and not log_completions",
        "log_completions_hub_repo is set, but log_completions is False",
        drops="log_completions_hub_repo",
        example="log_completions_hub_repo='a/b', use_cpu=True",
        since="1",
    ),
    Contract(
        ("trl.DPOConfig",),
        "listed(loss_weights) and text(loss_type) and size(loss_weights) != 1",
        "`loss_weights` must have the same length as `loss_type` when combining multiple losses",
        example="loss_weights=[0.5, 0.5], loss_type='sigmoid', use_cpu=True",
    ),
    Contract(
        ("trl.DPOConfig",),
        "listed(loss_weights) and listed(loss_type) and size(loss_weights) != size(loss_type)",
        "`loss_weights` must have the same length as `loss_type` when combining multiple losses",
        example="loss_weights=[0.5], loss_type=['sigmoid', 'bco_pair'], use_cpu=True",
    ),
    Contract(
        ("trl.DistillationConfig",),
        "number(beta) and (beta < 0 or beta > 1)",
        "beta must be in [0.0, 1.0], got",
        example="beta=2.0, use_cpu=True",
    ),
    Contract(
        ("trl.ModelConfig", "trl.train"),  # the scripts' configuration files hold the keys of ModelConfig
        "load_in_8bit and load_in_4bit",
        "You can't use 8 bit and 4 bit precision at the same time",
        example="load_in_8bit=True, load_in_4bit=True",
    ),
)

ROWS = (*_TRAINER_ROWS, *LOSS_ROWS, *_CONFIG_ROWS, *wrapped_rows(*_ATTACHES), *target_rows(*_ATTACHES))
