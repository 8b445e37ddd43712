"""What axolotl's validators refuse, and which keys it does not heed: axolotl 0.19, ``utils/schemas``, ``loaders/model.py``."""

from __future__ import annotations

from kbitlint.upstream.contracts.axolotl_runs import FIRST, RUN_ROWS, SHARDED, TRAIN, refused
from kbitlint.upstream.contracts.formats import FORMAT_ROWS
from kbitlint.upstream.contracts.rows import Contract

_PACKED = "(load_in_4bit or load_in_8bit)"
_SECOND = "(fsdp_version == 2 or fsdp_config.fsdp_version == 2)"
_KERNELS = "(lora_mlp_kernel or lora_qkv_kernel or lora_o_kernel)"
_LORA = "adapter in ('lora', 'qlora')"


_ADAPTERS = (
    # quantized weights without adapters are another rule's (quantized-without-adapters)
    refused(
        "text(adapter) and adapter not in ('lora', 'qlora', 'llama-adapter') and not plugins",
        "Adapter '' is not built in and was not registered by a plugin",
    ),
    refused("adapter == 'qlora' and merge_lora and load_in_8bit", "Can't merge qlora if loaded in 8bit"),
    refused("adapter == 'qlora' and merge_lora and gptq", "Can't merge qlora if gptq"),
    refused("adapter == 'qlora' and merge_lora and load_in_4bit", "Can't merge qlora if loaded in 4bit"),
    refused("adapter == 'qlora' and not merge_lora and load_in_8bit", "Can't load qlora in 8bit", "load_in_8bit"),
    refused("adapter == 'qlora' and not merge_lora and gptq", "Can't load qlora if gptq"),
    refused(
        "adapter == 'qlora' and not merge_lora and not load_in_4bit and not load_in_8bit",
        "Require cfg.load_in_4bit to be True for qlora",
    ),
    Contract(
        TRAIN,
        "adapter == 'lora' and load_in_4bit is True and not load_in_8bit",
        "only `adapter: qlora` loads in 4 bits, and the base stays in 16 bits",
        "",
        "load_in_4bit",
    ),
    refused(
        "lora_target_parameters and number(lora_dropout) and lora_dropout != 0",
        "lora_dropout must be 0 when lora_target_parameters is set",
    ),
    refused(
        "peft_layers_pattern and not peft_layers_to_transform",
        "peft_layers_pattern requires peft_layers_to_transform to be set",
    ),
    refused(f"{_LORA} and flash_attn_fuse_mlp", "Fused modules are not supported with LoRA/QLoRA"),
    refused(f"{_LORA} and use_onebitllms", "LoRA/QLoRA is not supported with use_onebitllms"),
    refused(
        f"{_KERNELS} and adapter == 'lora' and load_in_8bit",
        "lora_mlp_kernel, lora_qkv_kernel, and lora_o_kernel are not compatible with 8-bit LoRA",
    ),
    refused(
        f"{_KERNELS} and trust_remote_code",
        "lora_mlp_kernel, lora_qkv_kernel, and lora_o_kernel are not compatible with trust_remote_code",
    ),
    refused("lr_groups and loraplus_lr_ratio", "lr_groups and loraplus_lr_ratio cannot be used together"),
)

_EXPERTS = (
    refused(
        "quantize_moe_experts and lora_target_linear",
        "lora_target_linear is not compatible with quantize_moe_experts",
        "lora_target_linear",
    ),
    refused(f"quantize_moe_experts and not {_LORA}", "quantize_moe_experts requires adapter: lora or qlora"),
    refused(f"quantize_moe_experts and not {_PACKED}", "quantize_moe_experts requires load_in_4bit or load_in_8bit"),
    refused(
        f"model_quantization_config and {_PACKED}",
        "model_quantization_config and load_in_8bit or load_in_4bit cannot be used together",
    ),
    Contract(  # loaders/model.py, _set_quantization_config
        TRAIN,
        "bnb_config_kwargs is not None and adapter == 'lora' and load_in_8bit is True and not load_in_4bit",
        "`bnb_config_kwargs` is read for 4 bits only",
        "",
        "bnb_config_kwargs",
    ),
    refused(
        "model_quantization_config == 'Mxfp4Config' and fsdp_config.cpu_ram_efficient_loading is True",
        "FSDP cpu_ram_efficient_loading is not supported for Mxfp4Config model quantization",
    ),
    refused("save_safetensors is False", "save_safetensors=False is not supported in Transformers V5", "save_safetensors"),
    refused("qat and load_in_8bit", "QAT and load_in_8bit cannot be used together"),
    refused("qat and load_in_4bit", "QAT and load_in_4bit cannot be used together"),
    refused("gptq and revision_of_model", "revision_of_model is not supported for GPTQ models"),
)

_PARALLEL = (
    refused("deepspeed and fsdp", "deepspeed and fsdp cannot be used together"),
    refused(
        f"{_SECOND} and rl in ('dpo', 'kto', 'orpo', 'ipo') and {_PACKED}",
        "FSDP2 does not support load_in_8bit or load_in_4bit with",
    ),
    refused(
        f"{_SECOND} and (fsdp_config.cpu_ram_efficient_loading or fsdp_config.fsdp_cpu_ram_efficient_loading) and load_in_4bit",
        "FSDP2 does not support `cpu_ram_efficient_loading` with load_in_4bit",
    ),
    refused(
        f"{FIRST} and has(optimizer, '8bit') and (fsdp_config.offload_params or fsdp_config.fsdp_offload_params)",
        "FSDP Offload not compatible with",
    ),
    refused(f"{FIRST} and {_KERNELS}", "lora_mlp_kernel, lora_qkv_kernel, and lora_o_kernel are not compatible with FSDP1"),
    refused("fp32_norms and fsdp_config is None", "fp32_norms requires FSDP to be enabled", "fp32_norms"),
    refused(f"fp32_norms and fsdp_config is not None and {FIRST}", "fp32_norms requires fsdp_version: 2", "fp32_norms"),
    Contract(
        TRAIN,
        "fp32_norm_classes and not fp32_norms",
        "fp32_norm_classes is set but fp32_norms is not enabled",
        "",
        "fp32_norm_classes",
    ),
    refused(
        "optimizer == 'polora' and not plugins and (adapter is None or adapter not in ('lora', 'qlora'))",
        "polora only updates LoRA (A, B) factors and requires adapter: lora or qlora",
    ),
    refused("optimizer == 'polora' and deepspeed", "polora is not compatible with DeepSpeed or tensor parallelism"),
    refused("optimizer == 'muon' and deepspeed", "Muon optimizer is currently incompatible with DeepSpeed"),
    refused(f"relora and {SHARDED}", "fsdp not supported with ReLoRA"),
    refused("relora and deepspeed", "deepspeed not supported with ReLoRA"),
    refused("relora and lr_scheduler == 'one_cycle'", "ReLoRA is not compatible with the one_cycle scheduler"),
    refused("relora and not jagged_restart_steps", "jagged_restart_steps must be set to use ReLoRA"),
    refused("optimizer == 'q_galore_adamw8bit' and adapter", "q_galore_adamw8bit is incompatible with adapter"),
)

_CHECKPOINTING = (
    refused(
        "activation_offloading and not gradient_checkpointing",
        "activation_offloading requires gradient_checkpointing",
    ),
    refused(
        "selective_checkpointing and not gradient_checkpointing",
        "selective_checkpointing requires gradient_checkpointing",
    ),
    refused(
        "selective_checkpointing and activation_offloading and activation_offloading != 'hidden_states'",
        "selective_checkpointing is only compatible with activation_offloading: hidden_states",
    ),
    refused(
        "unfrozen_parameters and gradient_checkpointing_kwargs.use_reentrant is True",
        "`use_reentrant` must be false when used with partially frozen model",
    ),
    refused(
        "selective_checkpointing and gradient_checkpointing_kwargs.use_reentrant",
        "selective_checkpointing requires non-reentrant checkpointing",
    ),
    refused(
        "selective_checkpointing and adapter and within(selective_checkpointing.save, 'mm', 'addmm', 'matmul', 'bmm')",
        "which cannot be saved when training with a LoRA/QLoRA adapter",
    ),
    refused(
        "activation_offloading == 'hidden_states' and gradient_checkpointing_kwargs.use_reentrant and unfrozen_parameters",
        "activation_offloading: hidden_states with reentrant checkpointing is incompatible with `unfrozen_parameters`",
    ),
    refused("has(base_model, 'mpt-') and gradient_checkpointing", "gradient_checkpointing is not supported for MPT models"),
    refused("has(base_model, 'falcon') and fsdp", "FSDP is not supported for falcon models"),
)

ROWS = (*FORMAT_ROWS, *_ADAPTERS, *_EXPERTS, *_PARALLEL, *_CHECKPOINTING, *RUN_ROWS)
