"""What axolotl refuses of a run, whatever its weights: axolotl 0.19, ``utils/schemas/validation.py`` and ``config.py``."""

from __future__ import annotations

from kbitlint.upstream.contracts.rows import Contract

TRAIN = ("axolotl.train",)
SHARDED = "(fsdp or fsdp_config)"
#: FSDP's version, 1 where no key sets it
FIRST = f"{SHARDED} and fsdp_version is None and fsdp_config.fsdp_version is None and fsdp_config.version is None"
_SECOND = "fsdp_config and (fsdp_version == 2 or fsdp_config.fsdp_version == 2)"
_LOSSES = ("cut_cross_entropy", "chunked_cross_entropy", "liger_cross_entropy", "liger_fused_linear_cross_entropy")
_OLD_ATTENTION = (
    "(xformers_attention or sage_attention or flex_attention or flash_attention or sdp_attention or eager_attention)"
)
_MISTRAL = ("added_tokens_overrides", "special_tokens", "tokens", "chat_template", "processor_kwargs")


def refused(when: str, message: str, drops: str = "", raises: str = "ValueError") -> Contract:
    """Return the row of a configuration that axolotl refuses to train."""
    return Contract(TRAIN, when, message, raises, drops)


_STEPS = (
    refused("gradient_accumulation_steps and batch_size", "please set only one of gradient_accumulation_steps or batch_size"),
    refused(
        "batch_size and not micro_batch_size and not gradient_accumulation_steps",
        "At least two of micro_batch_size, gradient_accumulation_steps, batch_size must be set",
    ),
    refused("warmup_steps and warmup_ratio", "warmup_steps and warmup_ratio are mutually exclusive"),
    refused("rl == 'simpo' and warmup_ratio", "warmup_ratio is not supported with the simpo trainer", "warmup_ratio"),
    refused("save_strategy and save_steps and save_strategy != 'steps'", "save_strategy and save_steps mismatch"),
    refused("saves_per_epoch and save_steps", "save_steps and saves_per_epoch are mutually exclusive"),
    refused("save_strategy == 'best' and not metric_for_best_model", "`metric_for_best_model` is required"),
    refused("eval_strategy and eval_steps and eval_strategy != 'steps'", "eval_strategy and eval_steps mismatch"),
    refused("evals_per_epoch and eval_steps", "eval_steps and evals_per_epoch are mutually exclusive"),
    refused(
        "evals_per_epoch and eval_strategy and eval_strategy != 'steps'",
        "eval_strategy must be empty or set to `steps` when used with evals_per_epoch",
    ),
    refused(
        "number(val_set_size) and val_set_size == 0 and (eval_steps or eval_strategy) and not test_datasets "
        "and eval_strategy != 'no'",
        "eval_steps and eval_strategy are not supported with val_set_size == 0",
    ),
    refused("do_bench_eval and not evals_per_epoch and not eval_steps", "do_bench_eval requires evals_per_epoch or eval_steps"),
    refused(
        "early_stopping_patience and (not save_steps or not eval_steps)",
        "`early_stopping_patience` requires save_steps and eval_steps to be set",
    ),
    refused(
        "early_stopping_patience and number(save_steps) and number(eval_steps) and save_steps % eval_steps != 0",
        "`early_stopping_patience` requires that eval_steps should evenly divide save_steps",
    ),
)

_DATA = (
    refused("test_datasets and val_set_size", "non-zero val_set_size should not be used with test_datasets configuration"),
    refused(
        "starting(datasets, 'type', 'sharegpt')",
        "`type: sharegpt.*` is deprecated. Please use `type: chat_template` instead",
        "datasets",
    ),
    refused("push_dataset_to_hub and hf_use_auth_token is not True", "Require cfg.hf_use_auth_token to be True"),
    refused(
        "sample_packing and eval_table_size and eval_sample_packing is not False",
        "eval_table_size and eval_sample_packing are not supported together with sample_packing",
    ),
    refused(
        "do_causal_lm_eval and (eval_sample_packing or sample_packing and eval_sample_packing is None and not eval_table_size)",
        "do_causal_lm_eval is enabled, eval_sample_packing must be False",
    ),
    refused("chat_template == 'jinja' and not chat_template_jinja", "chat_template_jinja is required when chat_template is"),
    refused("pretraining_dataset and not max_steps", "max_steps must be set when using iterable pretraining_dataset"),
    refused("pretraining_dataset and val_set_size", "val_set_size is not supported with pretraining_dataset", "val_set_size"),
    refused(
        "pretraining_dataset and include_tokens_per_second",
        "pretraining_dataset and include_tokens_per_second cannot be used together",
        "include_tokens_per_second",
    ),
    refused("streaming and val_set_size", "val_set_size is not supported with streaming datasets", "val_set_size"),
    refused("streaming and not max_steps", "max_steps must be set when using streaming datasets"),
    refused(
        "streaming and sample_packing and listed(datasets) and size(datasets) > 1",
        "Sample packing with multiple streaming datasets is not yet supported",
        raises="NotImplementedError",
    ),
    refused(
        "dataset_exact_deduplication and (streaming or pretraining_dataset)",
        "dataset_exact_deduplication is not available for streaming datasets",
        "dataset_exact_deduplication",
        "NotImplementedError",
    ),
    refused(
        "dataset_exact_deduplication and skip_prepare_dataset",
        "dataset_exact_deduplication does not work with skip_prepare_dataset",
    ),
    *(
        refused(f"tokenizer_use_mistral_common and {key}", f"{key} is not supported with mistral-common tokenizer", key)
        for key in _MISTRAL
    ),
)

_REWARDS = (
    refused("sample_packing and rl", "`sample_packing: true` does not work with RLHF training", "sample_packing"),
    refused("rl == 'kto' and remove_unused_columns is not False", "Set `remove_unused_columns: False` when using kto"),
    refused(
        "rl == 'grpo' and trl.use_liger_loss and number(context_parallel_size) and context_parallel_size > 1",
        "GRPO + SP + Liger not currently supported",
    ),
    refused("rl == 'grpo' and number(trl.num_generations) and trl.num_generations < 2", "GRPO requires `trl.num_generations"),
    refused(
        "rl == 'grpo' and number(trl.num_generations) and number(trl.generation_batch_size) "
        "and trl.generation_batch_size % trl.num_generations != 0",
        "GRPO: generation batch size must be divisible by `trl.num_generations`",
    ),
    refused(
        "rl == 'grpo' and number(trl.num_generations) and trl.num_generations > 1 and trl.generation_batch_size is None "
        "and number(micro_batch_size) and number(gradient_accumulation_steps) "
        "and micro_batch_size * gradient_accumulation_steps % trl.num_generations != 0",
        "GRPO: generation batch size must be divisible by `trl.num_generations`",
    ),
    refused(
        "rl == 'dpo' and dpo_loss_weights is not None and dpo_loss_type is None",
        "`dpo_loss_weights` requires `dpo_loss_type` to be set",
    ),
    refused(
        "rl == 'dpo' and listed(dpo_loss_type) and listed(dpo_loss_weights) and size(dpo_loss_type) != size(dpo_loss_weights)",
        "`dpo_loss_type` and `dpo_loss_weights` must be the same length",
    ),
    refused(
        "rl != 'dpo' and (dpo_loss_type is not None or dpo_loss_weights is not None)",
        "`dpo_loss_type` and `dpo_loss_weights` are for DPO only",
    ),
    refused("dpo_use_liger_kernel and rl == 'ipo'", "`dpo_use_liger_kernel` does not support the `ipo` loss type"),
    refused("number(beta) and number(trl.beta) and beta != trl.beta", "beta and trl.beta must match or one must be removed"),
    refused("rl == 'ebft' and not ebft", "`ebft` config section is required when `rl: ebft` is set"),
)

_OPTIMIZERS = (
    refused(f"optimizer == 'muon' and {FIRST}", "Muon optimizer is only compatible with FSDP2"),
    refused(f"optimizer == 'polora' and {FIRST}", "polora requires FSDP2"),
    *(
        refused(
            f"optimizer == 'polora' and {key}",
            "polora has no fallback optimizer, so the parameters added by",
            key,
        )
        for key in (
            *("lora_modules_to_save", "unfrozen_parameters", "peft_use_dora", "peft_trainable_token_indices"),
            *("lisa_step_interval", "reward_model", "process_reward_model"),
        )
    ),
    *(
        refused(f"optimizer == 'polora' and {key}", "polora sets its own per-factor step size, so", key)
        for key in ("loraplus_lr_ratio", "lr_groups", "embedding_lr", "embedding_lr_scale")
    ),
    refused("starts(optimizer, 'flash_') and deepspeed", "optimizer is incompatible with DeepSpeed"),
    refused(f"starts(optimizer, 'flash_') and {FIRST}", "optimizer is only compatible with FSDP2"),
    refused("noisy_embedding_alpha and neftune_noise_alpha", "noisy_embedding_alpha is deprecated, use neftune_noise_alpha"),
    refused("number(neftune_noise_alpha) and neftune_noise_alpha <= 0", "neftune_noise_alpha must be > 0.0"),
    refused("relora and not adapter", "cfg.adapter must support ReLoRA to use ReLoRA restart semantics"),
    refused("relora and flash_attn_fuse_mlp", "Fused modules are not supported with ReLoRA"),
    refused(
        "adapter and peft_layers_to_transform and unfrozen_parameters",
        "`unfrozen_parameters` used with `peft_layers_to_transform` can have unexpected behavior",
    ),
)

#: keys that ``schemas/deprecated.py`` refuses, whatever their value or where it counts as true
_GONE = (
    *(
        refused(f"{key} is not None", f"`{key}` is no longer supported", key, "DeprecationWarning")
        for key in ("dpo_use_logits_to_keep", "dpo_generate_during_eval", "dpo_norm_loss")
    ),
    refused("rpo_alpha is not None", "`rpo_alpha` has been deprecated in TRL >= 0.29.0", "rpo_alpha", "DeprecationWarning"),
    *(
        refused(key, f"`{key}` is no longer supported", key, "DeprecationWarning")
        for key in ("max_packed_sequence_len", "rope_scaling")
    ),
    refused("s2_attention", "`s2_attention` (shifted-sparse attention) is no longer", "s2_attention", "DeprecationWarning"),
    refused("flash_attn_rms_norm", "`flash_attn_rms_norm` is no longer supported", "flash_attn_rms_norm", "DeprecationWarning"),
)

_SYSTEM = (
    *(
        refused(f"{one} and {other}", "Only one cross entropy optimization can be enabled at a time")
        for index, one in enumerate(_LOSSES)
        for other in _LOSSES[index + 1 :]
    ),
    *(
        refused(f"unsloth_{part}", f"`unsloth_{part}` has been removed", f"unsloth_{part}")
        for part in ("cross_entropy_loss", "lora_mlp", "lora_qkv", "lora_o", "rms_norm", "rope")
    ),
    refused("max_memory is not None and gpu_memory_limit is not None", "max_memory and gpu_memory_limit are mutually"),
    refused("deepcompile and not deepspeed", "DeepCompile is only supported with DeepSpeed"),
    refused(
        f"fsdp_config.cpu_offload_pin_memory is False and {FIRST}",
        "FSDP1 does not support disabling cpu_offload_pin_memory",
    ),
    refused(
        f"fsdp_config.cpu_offload_pin_memory is False and {_SECOND} and not fsdp_config.offload_params",
        "disabling cpu_offload_pin_memory requires enabling offload_params",
    ),
    refused(
        "fsdp_config.auto_wrap_policy == 'SIZE_BASED_WRAP' and fsdp_config.min_num_params is None",
        "fsdp_config.min_num_params is required when auto_wrap_policy is SIZE_BASED_WRAP",
    ),
    refused(f"text(attn_implementation) and ({_OLD_ATTENTION})", "cannot be combined with legacy attention flags"),
    refused(
        "attn_implementation in ('flash', 'flex', 'sdp')",
        "is not accepted. Use the canonical name",
        "attn_implementation",
    ),
    refused(
        "scaling_softmax and not flex_attention and attn_implementation != 'flex_attention'",
        "scaling_softmax requires flex attention",
    ),
    Contract(
        TRAIN,
        f"sample_packing and not rl and attn_implementation is None and not {_OLD_ATTENTION} and not gemma4_hybrid_attn_impl",
        "`sample_packing` without an attention backend does not handle cross-sample decontamination",
        "",
    ),
    refused("batch_flattening is True and sample_packing", "batch_flattening not compatible with sample_packing"),
    *(
        row
        for size in ("context_parallel_size", "sequence_parallel_degree")
        for row in (
            refused(
                f"number({size}) and {size} > 1 and not flash_attention and not use_glm_dsa_kernels "
                "and not gemma4_hybrid_attn_impl and attn_implementation != 'flash_attention_2'",
                "context_parallel_size > 1 requires attn_implementation: flash_attention_2",
            ),
            refused(
                f"number({size}) and {size} > 1 and sample_packing and number(micro_batch_size) and micro_batch_size > 1",
                "micro_batch_size must be set to 1 when sample_packing is enabled",
            ),
        )
    ),
    refused("torch_compile_options is not None and not torch_compile", "torch_compile_options is set but torch_compile is"),
    refused(f"ple_cpu_offload and {SHARDED}", "ple_cpu_offload is not compatible with FSDP", "ple_cpu_offload"),
    refused("ple_cpu_offload and deepspeed", "ple_cpu_offload is not compatible with DeepSpeed", "ple_cpu_offload"),
    refused("flash_optimum is True and (fp16 or bf16 or bf16 is None)", "AMP is not supported with BetterTransformer"),
    refused("fp8_config is not None and not fp8", "`fp8_config` requires `fp8: true`"),
    refused(
        "fp8_enable_fsdp_float8_all_gather and fsdp_version != 2",
        "fp8_enable_fsdp_float8_all_gather requires FSDP2 (fsdp_version: 2) to be used",
        "fp8_enable_fsdp_float8_all_gather",
    ),
    refused(
        "batch_flattening is True and attn_implementation is None and not flash_attention and not flex_attention "
        "and not xformers_attention and not sage_attention and not gemma4_hybrid_attn_impl",
        "batch_flattening requires a varlen-capable attention backend",
    ),
)

RUN_ROWS = (*_STEPS, *_DATA, *_REWARDS, *_OPTIMIZERS, *_GONE, *_SYSTEM)
