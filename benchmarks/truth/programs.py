"""Training scripts composed at random out of what people do: one list of options for each step, and the text of each option.

A program is a choice of one option for each step. The first option of a step is the plain one, and a program of plain options
trains.
The script has a line ``# train`` between the part that makes the model and the part that trains it.
"""

from __future__ import annotations

import random
from typing import Any

Program = dict[str, str]

#: model type -> arguments of its config, beside the sizes that all share
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {"num_key_value_heads": 2, "intermediate_size": 128},
    "qwen2": {"num_key_value_heads": 2, "intermediate_size": 128},
    "qwen3": {"num_key_value_heads": 2, "intermediate_size": 128, "head_dim": 16},
    "mistral": {"num_key_value_heads": 2, "intermediate_size": 128, "sliding_window": 8},
    "gemma2": {"num_key_value_heads": 2, "intermediate_size": 128, "head_dim": 16},
    "phi3": {"num_key_value_heads": 2, "intermediate_size": 128},
    "olmo2": {"num_key_value_heads": 2, "intermediate_size": 128},
    "gpt2": {"n_inner": 128},
    "gpt_neox": {"intermediate_size": 128},
    "opt": {"ffn_dim": 128, "word_embed_proj_dim": 64},
    "falcon": {"new_decoder_architecture": False},
    "bloom": {},
}
SIZES = {"hidden_size": 64, "num_attention_heads": 4, "vocab_size": 256, "max_position_embeddings": 64, "pad_token_id": 0}

#: step -> option -> lines of the script; the first option is the plain one
STEPS: dict[str, dict[str, str]] = {
    "family": dict.fromkeys(ARCHITECTURES, ""),
    "layers": {"2": "", "1": "", "3": ""},
    "tied": {"no": "", "yes": ""},
    "dtype": {"bfloat16": "", "float16": "", "float32": ""},
    "quantization": {
        "nf4": 'quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4"{compute})',
        "nf4 twice": 'quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", '
        "bnb_4bit_use_double_quant=True{compute})",
        "fp4": "quantization = BitsAndBytesConfig(load_in_4bit=True{compute})",
        "nf4, more left out": 'quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", '
        'llm_int8_skip_modules=["lm_head", "down_proj", "fc2"]{compute})',
        "nf4, head packed": 'quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", '
        'llm_int8_skip_modules=["score"]{compute})',
        "nf4 in bfloat16": 'quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", '
        "bnb_4bit_quant_storage=torch.bfloat16{compute})",
        "int8": "quantization = BitsAndBytesConfig(load_in_8bit=True)",
        "none": "quantization = None",
    },
    "compute": {
        "of the model": ", bnb_4bit_compute_dtype=torch.{dtype}",
        "default": "",
        "bfloat16": ", bnb_4bit_compute_dtype=torch.bfloat16",
        "float16": ", bnb_4bit_compute_dtype=torch.float16",
    },
    "loaded": {
        "plain": "",
        "no cache": "model.config.use_cache = False",
        "resized": "model.resize_token_embeddings(264)",
        "under inference mode": "",
        "train": "model.train()",
    },
    "prepared": {
        "without reentry": "model = prepare_model_for_kbit_training("
        'model, gradient_checkpointing_kwargs={"use_reentrant": False})',
        "peft": "model = prepare_model_for_kbit_training(model)",
        "without checkpointing": "model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)",
        "no": "",
        "frozen": "for parameter in model.parameters():\n    parameter.requires_grad = False",
        "norms by hand": "for name, parameter in model.named_parameters():\n    parameter.requires_grad = False\n"
        "    if parameter.ndim == 1:\n        parameter.data = parameter.data.float()",
        "after the adapters": "",
    },
    "checkpointing": {
        "as prepared": "",
        "off": "model.gradient_checkpointing_disable()",
        "on": "model.gradient_checkpointing_enable()",
        "reentrant": 'model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": True})',
        "not reentrant": 'model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})',
        "reentrant without hook": 'model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": True})\n'
        "model.disable_input_require_grads()",
        "hook": "model.enable_input_require_grads()",
    },
    "base": {
        "as it is": "",
        "embeddings in float32": "model.get_input_embeddings().float()",
        "head in float32": "model.get_output_embeddings().float()",
        "half": "model.half()",
        "to bfloat16": "model.to(torch.bfloat16)",
        "head trains": "model.get_output_embeddings().weight.requires_grad_(True)",
        "evaluated": "model.eval()",
        "hook that detaches": "model.base_model.register_forward_pre_hook(lambda module, args: None)\n"
        "model.get_input_embeddings().register_forward_hook(lambda module, args, output: output.detach())",
        "hook that casts": "model.get_input_embeddings().register_forward_hook(lambda module, args, output: output.float())",
    },
    "adapter": {
        "lora": 'config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"{further})',
        "lora, some": 'config = LoraConfig(r=4, target_modules={some}, task_type="CAUSAL_LM"{further})',
        "lora, no task": "config = LoraConfig(r=4, target_modules={some}{further})",
        "dora": 'config = LoraConfig(r=4, target_modules={some}, use_dora=True, task_type="CAUSAL_LM"{further})',
        "ia3": 'config = IA3Config(target_modules={some}, feedforward_modules=[], task_type="CAUSAL_LM")',
        "oft": 'config = OFTConfig(oft_block_size=16, target_modules={some}, task_type="CAUSAL_LM")',
        "vera": 'config = VeraConfig(r=4, target_modules={some}, task_type="CAUSAL_LM")',
        "loha": 'config = LoHaConfig(r=4, target_modules={some}, task_type="CAUSAL_LM")',
        "prompt tuning": 'config = PromptTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM")',
        "prefix tuning": 'config = PrefixTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM")',
        "ln tuning": 'config = LNTuningConfig(task_type="CAUSAL_LM")',
        "none": "",
    },
    "further": {
        "plain": "",
        "dropout": ", lora_dropout=0.1",
        "rslora": ", use_rslora=True",
        "head saved": ', modules_to_save=["lm_head"]',
        "embeddings saved": ', modules_to_save=["embed_tokens"]',
        "bias": ', bias="all"',
        "inference": ", inference_mode=True",
        "first layer": ", layers_to_transform=[0]",
        "invoked": ", alora_invocation_tokens=[5, 6]",
    },
    "attached": {
        "get_peft_model": "model = get_peft_model(model, config)",
        "not cast": "model = get_peft_model(model, config, autocast_adapter_dtype=False)",
        "add_adapter": "model.add_adapter(config)",
    },
    "adapted": {
        "plain": "",
        "frozen": "model.requires_grad_(False)",
        "everything trains": "for parameter in model.parameters():\n    if parameter.is_floating_point():\n"
        "        parameter.requires_grad_(True)",
        "half": "for parameter in model.parameters():\n    if parameter.requires_grad:\n"
        "        parameter.data = parameter.data.half()",
        "bfloat16": "for parameter in model.parameters():\n    if parameter.requires_grad:\n"
        "        parameter.data = parameter.data.bfloat16()",
        "merged": "model.merge_adapter()",
        "merged and unloaded": "model = model.merge_and_unload()",
        "second": 'model.add_adapter("second", config)',
        "second active": 'model.add_adapter("second", config)\nmodel.set_adapter("second")',
        "disabled": "model.base_model.disable_adapter_layers()",
        "saved and loaded": "model.save_pretrained(folder)\nmodel = PeftModel.from_pretrained(model.unload(), folder)",
        "saved and loaded to train": "model.save_pretrained(folder)\n"
        "model = PeftModel.from_pretrained(model.unload(), folder, is_trainable=True)",
        "layers frozen": 'for name, parameter in model.named_parameters():\n    if ".0." in name:\n'
        "        parameter.requires_grad = False",
    },
    "loop": {
        "plain": "",
        "autocast": "",
        "accelerate": "",
        "trainer": "",
        "trainer, bf16": "",
        "trainer, checkpointing": "",
    },
}

_SOME = {
    "gpt2": ["c_attn", "c_fc"],
    "gpt_neox": ["query_key_value", "dense_h_to_4h"],
    "falcon": ["query_key_value", "dense_h_to_4h"],
    "bloom": ["query_key_value", "dense_h_to_4h"],
    "phi3": ["qkv_proj", "gate_up_proj"],
    "opt": ["q_proj", "v_proj", "fc1"],
}
#: options that only PEFT's own model has a method for
_OF_PEFT_MODEL = (
    "merged",
    "merged and unloaded",
    "second",
    "second active",
    "disabled",
    "saved and loaded",
    "saved and loaded to train",
)
#: families whose input embedding has another name than ``embed_tokens``
_EMBEDDINGS = {"gpt2": "wte", "gpt_neox": "embed_in", "falcon": "word_embeddings", "bloom": "word_embeddings"}
_TRAINER = {"trainer": "", "trainer, bf16": ", bf16=True", "trainer, checkpointing": ", gradient_checkpointing=True"}


def drawn(seed: int) -> Program:
    """Return the program of a seed. Each step is plain in half of the programs, so that single faults and pairs are common."""
    dice = random.Random(seed)  # noqa: S311  # a sample, not a secret
    chosen = {}
    for step, options in STEPS.items():
        often = 0.0 if step in ("family", "layers") else 0.6
        chosen[step] = next(iter(options)) if dice.random() < often else dice.choice(list(options))
    return _possible(chosen)


def _possible(program: Program) -> Program:
    """Return a program without options that the libraries refuse by their signature, which no script keeps for long."""
    made = dict(program)
    if made["attached"] == "add_adapter" and made["adapted"] in _OF_PEFT_MODEL:
        made["attached"] = plain("attached")
    if made["further"] == "first layer" and made["adapter"] == "lora":
        made["adapter"] = "lora, some"
    if made["further"] == "embeddings saved" and "embed_tokens" not in _EMBEDDINGS.get(made["family"], "embed_tokens"):
        made["further"] = plain("further")
    if made["adapter"] == "ln tuning" and made["family"] == "opt":
        made["adapter"] = plain("adapter")
    return made


def plain(step: str) -> str:
    """Return the plain option of a step."""
    return next(iter(STEPS[step]))


def script(program: Program, checkpoint: str, folder: str) -> str:
    """Return the text of a program.

    Args:
        program: The option of each step.
        checkpoint: The folder of the base model.
        folder: An empty folder, for what the program saves.
    """

    def text(step: str) -> str:
        return STEPS[step][program[step]]

    quantization = text("quantization").replace("{compute}", text("compute").replace("{dtype}", program["dtype"]))
    some = str(_SOME.get(program["family"], ["q_proj", "v_proj", "up_proj"]))
    load = (
        f'model = AutoModelForCausalLM.from_pretrained("{checkpoint}", dtype=torch.{program["dtype"]}, '
        'device_map={"": "cpu"}, quantization_config=quantization)'
    )
    if program["loaded"] == "under inference mode":
        load = f"with torch.inference_mode():\n    {load}"
    late = STEPS["prepared"]["without reentry"] if program["prepared"] == "after the adapters" else ""
    adapter = text("adapter").replace("{some}", some).replace("{further}", text("further"))
    attached = [adapter, text("attached"), text("adapted")] if program["adapter"] != "none" else []
    lines = [
        *_HEAD,
        f'folder = "{folder}"',
        quantization,
        load,
        text("loaded"),
        text("prepared"),
        text("checkpointing"),
        text("base"),
        *attached,
        late,
        "# train",
        *_loop(program["loop"]),
    ]
    return "\n".join(line for line in lines if line) + "\n"


_HEAD = (
    "import torch",
    "from peft import IA3Config, LNTuningConfig, LoHaConfig, LoraConfig, OFTConfig, PeftModel, PrefixTuningConfig",
    "from peft import PromptTuningConfig, VeraConfig, get_peft_model, prepare_model_for_kbit_training",
    "from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Trainer, TrainingArguments",
    "torch.manual_seed(0)",
)


def _loop(kind: str) -> list[str]:
    """Return the lines that train a model for two steps. The batch holds the invocation tokens 5 and 6."""
    batch = [
        "tokens = torch.randint(7, 250, (2, 16))",
        "tokens[:, 4], tokens[:, 5] = 5, 6",
    ]
    if kind in _TRAINER:
        return [
            *batch,
            'data = [{"input_ids": row, "attention_mask": torch.ones_like(row), "labels": row} for row in tokens]',
            (
                "arguments = TrainingArguments(output_dir=folder, per_device_train_batch_size=2, max_steps=2, use_cpu=True, "
                f'report_to="none", save_strategy="no", learning_rate=1e-2{_TRAINER[kind]})'
            ),
            "trainer = Trainer(model=model, args=arguments, train_dataset=data)",
            "trainer.train()",
        ]
    opened = {"plain": "", "accelerate": "", "autocast": 'with torch.autocast("cpu", torch.bfloat16):'}[kind]
    call = "loss = model(input_ids=tokens, attention_mask=torch.ones_like(tokens), labels=tokens).loss"
    wrapped = [
        "from accelerate import Accelerator",
        "accelerator = Accelerator(cpu=True)",
        "model, optimizer = accelerator.prepare(model, optimizer)",
    ]
    return [
        *batch,
        "optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)",
        *(wrapped if kind == "accelerate" else []),
        "model.train()",
        "for _ in range(2):",
        *([f"    {opened}", f"        {call}"] if opened else [f"    {call}"]),
        "    accelerator.backward(loss)" if kind == "accelerate" else "    loss.backward()",
        "    optimizer.step()",
        "    optimizer.zero_grad()",
    ]
