"""What axolotl, LLaMA-Factory and ms-swift refuse or do not heed: a configuration for each row, and its right twin."""

from __future__ import annotations

import pytest
from script_cases import findings

AXOLOTL = "base_model: lab/base-7b\nload_in_4bit: true\nadapter: qlora\ngradient_checkpointing: true\nlr_scheduler: cosine\n"
EIGHT = AXOLOTL.replace("load_in_4bit", "load_in_8bit").replace("qlora", "lora")
FSDP1 = "fsdp_config:\n  offload_params: false\n"
FSDP2 = f"fsdp_version: 2\n{FSDP1}"
FACTORY = "model_name_or_path: lab/base-7b\nstage: sft\ndo_train: true\nfinetuning_type: lora\ndataset: d\ntemplate: llama3\n"
GPTQ = FACTORY.replace("base-7b", "base-7B-GPTQ")
EXPORT = "llamafactory-cli export --model_name_or_path lab/base-7b --export_quantization_dataset c4.json"
SWIFT = "swift sft --model lab/base-7b --tuner_type lora --dataset d --quant_method bnb --quant_bits 4 {}\n"
RLHF = "swift rlhf --rlhf_type {} --model lab/base-7b --tuner_type lora --dataset d{}\n"
OUT = "swift export --model lab/base-7b {}\n"

CASES = {
    "axolotl: offloading without checkpointing": (
        f"{AXOLOTL}activation_offloading: true\n".replace("gradient_checkpointing: true\n", ""),
        f"{AXOLOTL}activation_offloading: true\n",
        "error",
    ),
    "axolotl: selective checkpointing beside TRL's offloader": (
        f"{AXOLOTL}selective_checkpointing: true\nactivation_offloading: legacy\n",
        f"{AXOLOTL}selective_checkpointing: true\nactivation_offloading: hidden_states\n",
        "error",
    ),
    "axolotl: packing without an attention that separates samples": (
        f"{AXOLOTL}sample_packing: true\nflash_attention: false\n",
        f"{AXOLOTL}sample_packing: true\nattn_implementation: sdpa\n",
        "warning",
    ),
    "axolotl: options of 4 bits for 8 bits": (
        f"{EIGHT}bnb_config_kwargs:\n  llm_int8_threshold: 4.0\n",
        f"{AXOLOTL}bnb_config_kwargs:\n  bnb_4bit_use_double_quant: true\n",
        "warning",
    ),
    "axolotl: float32 norms under FSDP1": (
        f"{AXOLOTL}{FSDP1}fp32_norms: true\n",
        f"{AXOLOTL}{FSDP2}fp32_norms: true\n",
        "error",
    ),
    "axolotl: float32 norms without FSDP": (f"{AXOLOTL}fp32_norms: true\n", AXOLOTL, "error"),
    "axolotl: classes of norms that stay as they are": (
        f"{AXOLOTL}{FSDP2}fp32_norm_classes: [RMSNorm]\n",
        f"{AXOLOTL}{FSDP2}fp32_norm_classes: [RMSNorm]\nfp32_norms: true\n",
        "warning",
    ),
    "axolotl: polora under DeepSpeed": (
        f"{AXOLOTL}optimizer: polora\ndeepspeed: zero2.json\n",
        f"{AXOLOTL}optimizer: polora\n",
        "error",
    ),
    "axolotl: ReLoRA with one cycle": (
        f"{AXOLOTL}relora: true\njagged_restart_steps: 10\n".replace("cosine", "one_cycle"),
        f"{AXOLOTL}relora: true\njagged_restart_steps: 10\n",
        "error",
    ),
    "axolotl: pickled weights": (f"{AXOLOTL}save_safetensors: false\n", f"{AXOLOTL}save_safetensors: true\n", "error"),
    "axolotl: two rhythms of saving": (
        f"{AXOLOTL}save_steps: 100\nsaves_per_epoch: 2\n",
        f"{AXOLOTL}saves_per_epoch: 2\n",
        "error",
    ),
    "axolotl: steps of evaluation without data": (
        f"{AXOLOTL}val_set_size: 0\neval_steps: 50\n",
        f"{AXOLOTL}val_set_size: 0.05\neval_steps: 50\n",
        "error",
    ),
    "axolotl: stopping early between two saves": (
        f"{AXOLOTL}early_stopping_patience: 3\nsave_steps: 100\neval_steps: 30\n",
        f"{AXOLOTL}early_stopping_patience: 3\nsave_steps: 90\neval_steps: 30\n",
        "error",
    ),
    "axolotl: packing with preferences": (
        f"{AXOLOTL}rl: dpo\nsample_packing: true\n",
        f"{AXOLOTL}rl: dpo\n",
        "error",
    ),
    "axolotl: groups that a step does not fill": (
        f"{AXOLOTL}rl: grpo\ntrl:\n  num_generations: 8\nmicro_batch_size: 2\ngradient_accumulation_steps: 2\n",
        f"{AXOLOTL}rl: grpo\ntrl:\n  num_generations: 8\nmicro_batch_size: 2\ngradient_accumulation_steps: 4\n",
        "error",
    ),
    "axolotl: a format of conversations that is gone": (
        f"{AXOLOTL}datasets:\n  - path: a.jsonl\n    type: alpaca\n  - path: b.jsonl\n    type: sharegpt.load_role\n",
        f"{AXOLOTL}datasets:\n  - path: a.jsonl\n    type: alpaca\n  - path: b.jsonl\n    type: chat_template\n",
        "error",
    ),
    "axolotl: two fused losses": (
        f"{AXOLOTL}cut_cross_entropy: true\nliger_fused_linear_cross_entropy: true\n",
        f"{AXOLOTL}cut_cross_entropy: true\n",
        "error",
    ),
    "axolotl: attention named twice": (
        f"{AXOLOTL}attn_implementation: sdpa\nflash_attention: true\n",
        f"{AXOLOTL}flash_attention: true\n",
        "error",
    ),
    "axolotl: products kept under adapters": (
        f"{AXOLOTL}selective_checkpointing:\n  save: [attention, mm]\n",
        f"{AXOLOTL}selective_checkpointing:\n  save: [attention]\n",
        "error",
    ),
    "LLaMA-Factory: evaluation without data": (
        f"{FACTORY}quantization_bit: 4\neval_strategy: steps\n",
        f"{FACTORY}quantization_bit: 4\neval_strategy: steps\nval_size: 0.1\n",
        "error",
    ),
    "LLaMA-Factory: packing of preferences": (
        f"{FACTORY}quantization_bit: 4\nneat_packing: true\n".replace("stage: sft", "stage: dpo"),
        f"{FACTORY}quantization_bit: 4\nneat_packing: true\n",
        "error",
    ),
    "swift: packing without flash attention": (
        SWIFT.format("--packing true"),
        SWIFT.format("--packing true --attn_impl flash_attention_2"),
        "error",
    ),
    "swift: a mode of vLLM that is off": (
        RLHF.format("grpo", " --vllm_mode colocate"),
        RLHF.format("grpo", " --vllm_mode colocate --use_vllm true"),
        "error",
    ),
    "LLaMA-Factory: DoRA on GPTQ": (f"{GPTQ}use_dora: true\n", f"{FACTORY}quantization_bit: 4\nuse_dora: true\n", "error"),
    "LLaMA-Factory: GPTQ under ZeRO-3": (
        f"{GPTQ}deepspeed: ds_z3_config.json\n",
        f"{GPTQ}deepspeed: ds_z2_config.json\n",
        "error",
    ),
    "LLaMA-Factory: PiSSA on stored 4 bits": (
        f"{FACTORY}pissa_init: true\n".replace("base-7b", "base-7b-bnb-4bit"),
        f"{FACTORY}pissa_init: true\n",
        "error",
    ),
    "LLaMA-Factory: another engine for training": (
        f"{FACTORY}quantization_bit: 4\ninfer_backend: vllm\n",
        f"{FACTORY}quantization_bit: 4\ninfer_backend: huggingface\n",
        "error",
    ),
    "LLaMA-Factory: bits that GPTQ does not know": (
        f"{EXPORT} --export_quantization_bit 5\n",
        f"{EXPORT} --export_quantization_bit 4\n",
        "error",
    ),
    "swift: a dtype by torch's name": (
        SWIFT.format("--bnb_4bit_compute_dtype torch.bfloat16"),
        SWIFT.format("--bnb_4bit_compute_dtype bfloat16"),
        "error",
    ),
    "swift: a data type that bitsandbytes does not know": (
        SWIFT.format("--bnb_4bit_quant_type int4"),
        SWIFT.format("--bnb_4bit_quant_type nf4"),
        "error",
    ),
    "swift: a reference model beside adapters": (
        RLHF.format("dpo", " --ref_model lab/other"),
        RLHF.format("dpo", ""),
        "error",
    ),
    "swift: a reference model that GRPO does not use": (
        RLHF.format("grpo", " --ref_model lab/other --beta 0.1"),
        RLHF.format("grpo", " --ref_model lab/other --beta 0.0"),
        "error",
    ),
    "swift: GPTQ without data": (
        OUT.format("--quant_method gptq --quant_bits 4"),
        OUT.format("--quant_method gptq --quant_bits 4 --dataset d"),
        "error",
    ),
    "swift: a method that is for training only": (
        OUT.format("--quant_method hqq --quant_bits 4"),
        OUT.format("--quant_method bnb --quant_bits 4"),
        "error",
    ),
}


@pytest.mark.parametrize(("wrong", "right", "severity"), CASES.values(), ids=CASES)
def test_a_row_is_found_and_its_right_twin_is_not(wrong, right, severity):
    suffix = ".sh" if wrong.startswith(("swift", "llamafactory-cli")) else ".yaml"

    assert [found[0] for found in findings("KB535", wrong, suffix=suffix)] == [severity]
    assert findings("KB535", right, suffix=suffix) == []
