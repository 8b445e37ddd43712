"""What people do in a training script: for each step its options, and the lines of each option.

The first option of a step is the plain one. ``programs.py`` fills in the names in braces. The trainings are in
``program_loops.py``.
"""

from __future__ import annotations

_NF4 = 'load_in_4bit=True, bnb_4bit_quant_type="nf4"'
_PREPARE = "model = prepare_model_for_kbit_training(model{})"
_REENTRANT = 'gradient_checkpointing_kwargs={{"use_reentrant": {}}}'
_ENABLE = f"model.gradient_checkpointing_enable({_REENTRANT})"
_WRAPPER = (
    "from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import CheckpointImpl, checkpoint_wrapper\n"
    "from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import apply_activation_checkpointing\n"
    'def is_layer(module):\n    return type(module).__name__.endswith(("Layer", "Block"))'
)
_EACH = "for name, parameter in model.named_parameters():\n"
_MODULES = "for name, module in model.named_modules():\n"
_TRAINED = "for parameter in model.parameters():\n    if parameter.requires_grad:\n        parameter.data = parameter.data."
#: the folder of adapters that another run saved
EARLIER = '"earlier"'
_TRAINED_BEFORE = (
    "first = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)\n"
    "for _ in range(2):\n    model(**batch).loss.backward()\n    first.step()\n    first.zero_grad()"
)


def _skipping(names: str) -> str:
    return f"quantization = BitsAndBytesConfig({_NF4}, llm_int8_skip_modules={names}{{compute}})"


def _adapter(name: str, arguments: str) -> str:
    return f"config = {name}Config({arguments})"


def _layered(name: str, arguments: str = "") -> str:
    return _adapter(name, f"target_modules={{some}}{', ' if arguments else ''}{arguments}")


LOADING: dict[str, dict[str, str]] = {
    "layers": {"2": "", "1": "", "3": ""},
    "tied": {"no": "", "yes": ""},
    "dtype": {
        "bfloat16": ", dtype=torch.bfloat16",
        "float16": ", dtype=torch.float16",
        "float32": ", dtype=torch.float32",
        "of the checkpoint": ', dtype="auto"',
        "not given": "",
        "by its old name": ", torch_dtype=torch.bfloat16",
    },
    "placed": {
        "on one device": ', device_map={"": "cpu"}',
        "by name": ', device_map="cpu"',
        "automatically": ', device_map="auto"',
        "not": "",
    },
    "attention": {
        "default": "",
        "eager": ', attn_implementation="eager"',
        "sdpa": ', attn_implementation="sdpa"',
    },
    "quantization": {
        "nf4": f"quantization = BitsAndBytesConfig({_NF4}{{compute}})",
        "nf4 twice": f"quantization = BitsAndBytesConfig({_NF4}, bnb_4bit_use_double_quant=True{{compute}})",
        "fp4": "quantization = BitsAndBytesConfig(load_in_4bit=True{compute})",
        "nf4, more left out": _skipping('["{head}", "down_proj", "fc2"]'),
        "nf4, head packed": _skipping('["{some0}"]'),
        "nf4, a name that is not there": _skipping('["{head}", "projector"]'),
        "nf4 in bfloat16": f"quantization = BitsAndBytesConfig({_NF4}, bnb_4bit_quant_storage=torch.bfloat16{{compute}})",
        "nf4 as a dict": 'quantization = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}',
        "int8": "quantization = BitsAndBytesConfig(load_in_8bit=True)",
        "int8, no outliers": "quantization = BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0)",
        "int8, 16 bits kept": "quantization = BitsAndBytesConfig(load_in_8bit=True, llm_int8_has_fp16_weight=True)",
        "int8, more left out": "quantization = BitsAndBytesConfig(load_in_8bit=True, "
        'llm_int8_skip_modules=["{head}", "down_proj", "fc2"])',
        "nf4, stored in float32": f"quantization = BitsAndBytesConfig({_NF4}, bnb_4bit_quant_storage=torch.float32{{compute}})",
        "nf4, offloaded": f"quantization = BitsAndBytesConfig({_NF4}, llm_int8_enable_fp32_cpu_offload=True{{compute}})",
        "nf4 by keywords": 'options = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}\n'
        'options["bnb_4bit_compute_dtype"] = torch.{dtype}\nquantization = BitsAndBytesConfig(**options)',
        "by the old argument": "",
        "both": "quantization = BitsAndBytesConfig(load_in_4bit=True, load_in_8bit=True)",
        "none": "quantization = None",
    },
    "compute": {
        "of the model": ", bnb_4bit_compute_dtype=torch.{dtype}",
        "default": "",
        "bfloat16": ', bnb_4bit_compute_dtype="bfloat16"',
        "float16": ", bnb_4bit_compute_dtype=torch.float16",
        "half": ', bnb_4bit_compute_dtype="half"',
        "misspelt": ", bnb_4bit_compute_type=torch.bfloat16",
    },
}
PREPARING: dict[str, dict[str, str]] = {
    "loaded": {
        "plain": "",
        "no cache": "model.config.use_cache = False",
        "resized": "model.resize_token_embeddings(264)",
        "resized to a multiple": "model.resize_token_embeddings(250, pad_to_multiple_of=64)",
        "cut": "model.resize_token_embeddings(128)",
        "tied by hand": "model.tie_weights()",
        "under inference mode": "",
        "train": "model.train()",
        "moved": 'model.to("cpu")',
        "tokens added": "tokenizer = AutoTokenizer.from_pretrained({name})\n"
        'tokenizer.add_special_tokens({"additional_special_tokens": ["<call>"]})\n'
        "model.resize_token_embeddings(len(tokenizer))",
        "attention switched": 'model.set_attn_implementation("eager")',
        "dequantized": "model = model.dequantize()",
        "head replaced": "model.{head} = torch.nn.Linear(*reversed(model.{head}.weight.shape), bias=False)",
        "no padding token": "model.config.pad_token_id = None",
        "copied": "model = copy.deepcopy(model)",
        "saved packed and loaded": 'model.save_pretrained("packed")\n'
        'model = {class}.from_pretrained("packed", device_map={"": "cpu"})',
        "pickled": 'torch.save(model, "whole.pt")\nmodel = torch.load("whole.pt", weights_only=False)',
        "resized twice": "model.resize_token_embeddings(264)\nmodel.resize_token_embeddings(256)",
        "buffers in bfloat16": "for buffer in model.buffers():\n    buffer.data = buffer.data.bfloat16()",
        "dropout raised": "for module in model.modules():\n"
        "    if isinstance(module, torch.nn.Dropout):\n        module.p = 0.5",
    },
    "prepared": {
        "without reentry": _PREPARE.format(", " + _REENTRANT.format("False")),
        "peft": _PREPARE.format(""),
        "with reentry": _PREPARE.format(", " + _REENTRANT.format("True")),
        "without checkpointing": _PREPARE.format(", use_gradient_checkpointing=False"),
        "by the old function": "model = prepare_model_for_int8_training(model)",
        "in place": "prepare_model_for_kbit_training(model)",
        "twice": _PREPARE.format("") + "\n" + _PREPARE.format(""),
        "norm modules by hand": "model.requires_grad_(False)\n" + _MODULES + '    if "norm" in name:\n        module.float()\n'
        "model.enable_input_require_grads()\nmodel.gradient_checkpointing_enable()",
        "no": "",
        "frozen": "for parameter in model.parameters():\n    parameter.requires_grad = False",
        "norms by hand": _EACH + "    parameter.requires_grad = False\n"
        "    if parameter.ndim == 1:\n        parameter.data = parameter.data.float()",
        "after the adapters": "",
        "before and after the adapters": _PREPARE.format(""),
    },
    "checkpointing": {
        "as prepared": "",
        "off": "model.gradient_checkpointing_disable()",
        "on": "model.gradient_checkpointing_enable()",
        "reentrant": _ENABLE.format("True"),
        "not reentrant": _ENABLE.format("False"),
        "not reentrant, by position": 'model.gradient_checkpointing_enable({"use_reentrant": False})',
        "reentrant without hook": 'model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": True})\n'
        "model.disable_input_require_grads()",
        "hook": "model.enable_input_require_grads()",
        "on with a hook by hand": "model.gradient_checkpointing_enable()\n"
        "def require_grad(module, arguments, output):\n    output.requires_grad_(True)\n"
        "model.get_input_embeddings().register_forward_hook(require_grad)",
        "on with a hook": "model.gradient_checkpointing_enable()\nmodel.enable_input_require_grads()",
        "off and on": f"model.gradient_checkpointing_disable()\n{_ENABLE.format('False')}",
        "not compared": 'model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False, '
        '"determinism_check": "none"})',
        "on the body": "model.base_model.gradient_checkpointing_enable()",
        "by torch's wrapper": f"{_WRAPPER}\napply_activation_checkpointing(model, check_fn=is_layer)",
        "by torch's wrapper, reentrant": f"{_WRAPPER}\nwrapper = functools.partial(checkpoint_wrapper, "
        "checkpoint_impl=CheckpointImpl.REENTRANT)\n"
        "apply_activation_checkpointing(model, checkpoint_wrapper_fn=wrapper, check_fn=is_layer)",
        "random state not kept": 'model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False, '
        '"preserve_rng_state": False})',
    },
    "base": {
        "as it is": "",
        "embeddings in float32": "model.get_input_embeddings().float()",
        "head in float32": "model.get_output_embeddings().float()",
        "half": "model.half()",
        "to bfloat16": "model.to(torch.bfloat16)",
        "head trains": "model.get_output_embeddings().weight.requires_grad_(True)",
        "norms train": _EACH + '    if "norm" in name or "ln_" in name:\n        parameter.requires_grad = True',
        "embeddings train": "model.get_input_embeddings().weight.requires_grad_(True)",
        "biases train": _EACH + '    if name.endswith("bias"):\n        parameter.requires_grad = True',
        "first layer trains": _EACH + '    if ".0." in name:\n        parameter.requires_grad = True',
        "norms in float16": _EACH + '    if "norm" in name:\n        parameter.data = parameter.data.half()',
        "forward without gradients": "model.forward = torch.no_grad()(model.forward)",
        "default dtype": "torch.set_default_dtype(torch.bfloat16)",
        "norm modules in float32": _MODULES + '    if "norm" in name:\n        module.float()',
        "first modules in float32": _MODULES + '    if name.endswith(".0"):\n        module.float()',
        "other compute dtype": "for module in model.modules():\n"
        '    if hasattr(module, "compute_dtype"):\n        module.compute_dtype = torch.float16',
        "forward with an argument": "model.forward = functools.partial(model.forward, return_dict=True)",
        "forward wrapped": "original = model.forward\ndef forward(*arguments, **options):\n"
        "    return original(*arguments, **options)\nmodel.forward = forward",
        "backward hook": "model.register_full_backward_hook(lambda module, inputs, outputs: None)",
        "backward hooks": "for module in model.modules():\n"
        "    module.register_full_backward_hook(lambda module, inputs, outputs: None)",
        "outputs kept": "kept = []\nfor module in model.modules():\n"
        "    module.register_forward_hook(lambda module, arguments, output: kept.append(output))",
        "everything trains that floats": "for parameter in model.parameters():\n    if parameter.is_floating_point():\n"
        "        parameter.requires_grad = True",
        "run in inference mode": "with torch.inference_mode():\n    model(input_ids=torch.tensor([[10, 11, 12]]))",
        "frozen": "model.requires_grad_(False)",
        "everything trains": "for parameter in model.parameters():\n    parameter.requires_grad = True",
        "evaluated": "model.eval()",
        "hook that detaches": "model.get_input_embeddings().register_forward_hook("
        "lambda module, arguments, output: output.detach())",
        "hook that casts": "model.get_input_embeddings().register_forward_hook("
        "lambda module, arguments, output: output.float())",
        "head behind a cast": "class CastOutputToFloat(torch.nn.Sequential):\n"
        "    def forward(self, x):\n        return super().forward(x).to(torch.float32)\n"
        "model.{head} = CastOutputToFloat(model.{head})",
    },
}
_TASK = 'task_type="{task}"'
ATTACHING: dict[str, dict[str, str]] = {
    "adapter": {
        "lora": _adapter("Lora", f'r=4, target_modules="all-linear", {_TASK}{{further}}'),
        "lora, some": _adapter("Lora", f"r=4, lora_alpha=8, target_modules={{some}}, {_TASK}{{further}}"),
        "lora, by default": _adapter("Lora", f"r=4, {_TASK}{{further}}"),
        "lora, no task": _adapter("Lora", "r=4, target_modules={some}{further}"),
        "lora, a pattern": _adapter("Lora", f'r=4, target_modules=r".*({{some_pattern}})", {_TASK}{{further}}'),
        "lora, no such layer": _adapter("Lora", f'r=4, target_modules=["query_proj"], {_TASK}{{further}}'),
        "lora, with the head": _adapter("Lora", f'r=4, target_modules={{some}} + ["{{head}}"], {_TASK}{{further}}'),
        "lora, with the embeddings": _adapter("Lora", f'r=4, target_modules={{some}} + ["{{embeddings}}"], {_TASK}{{further}}'),
        "lora, experts": _adapter(
            "Lora", f'r=4, target_modules={{some}}, target_parameters=["gate_up_proj"], {_TASK}{{further}}'
        ),
        "dora": _adapter("Lora", f"r=4, target_modules={{some}}, use_dora=True, {_TASK}{{further}}"),
        "adalora": _layered("AdaLora", f"init_r=4, target_r=2, total_step=10, {_TASK}"),
        "ia3": _layered("IA3", f"feedforward_modules=[], {_TASK}"),
        "oft": _layered("OFT", f"oft_block_size=16, {_TASK}"),
        "boft": _layered("BOFT", f"boft_block_size=4, {_TASK}"),
        "vera": _layered("Vera", f"r=4, {_TASK}"),
        "loha": _layered("LoHa", f"r=4, {_TASK}"),
        "lokr": _layered("LoKr", f"r=4, {_TASK}"),
        "hra": _layered("HRA", f"r=4, {_TASK}"),
        "miss": _layered("Miss", f"r=4, {_TASK}"),
        "road": _layered("Road", f"group_size=16, {_TASK}"),
        "randlora": _layered("RandLora", f"r=4, {_TASK}"),
        "fourierft": _layered("FourierFT", f"n_frequency=10, {_TASK}"),
        "shira": _layered("Shira", f"r=4, {_TASK}"),
        "c3a": _layered("C3A", f"block_size=16, {_TASK}"),
        "delora": _layered("Delora", f"r=4, {_TASK}"),
        "hira": _layered("Hira", f"r=4, {_TASK}"),
        "trainable tokens": _adapter("TrainableTokens", f'token_indices=[5, 6], target_modules=["{{embeddings}}"], {_TASK}'),
        "prompt tuning": _adapter("PromptTuning", f"num_virtual_tokens=4, {_TASK}"),
        "p-tuning": _adapter("PromptEncoder", f"num_virtual_tokens=4, encoder_hidden_size=32, {_TASK}"),
        "prefix tuning": _adapter("PrefixTuning", f"num_virtual_tokens=4, {_TASK}"),
        "ln tuning": _adapter("LNTuning", _TASK),
        "gralora": _layered("Gralora", f"r=4, gralora_k=2, {_TASK}"),
        "vblora": _layered("VBLoRA", f"r=4, num_vectors=8, vector_length=16, {_TASK}"),
        "waveft": _layered("WaveFT", f"n_frequency=64, {_TASK}"),
        "tinylora": _layered("TinyLora", _TASK),
        "adaption prompt": _adapter("AdaptionPrompt", f"adapter_len=4, adapter_layers=1, {_TASK}"),
        "cpt": _adapter("CPT", f"cpt_token_ids=[3, 4], cpt_mask=[1, 1], cpt_tokens_type_mask=[1, 2], {_TASK}"),
        "none": "",
    },
    "further": {
        "plain": "",
        "dropout": ", lora_dropout=0.1",
        "rslora": ", use_rslora=True",
        "head saved": ', modules_to_save=["{head}"]',
        "embeddings saved": ', modules_to_save=["{embeddings}"]',
        "both saved": ', modules_to_save=["{embeddings}", "{head}"]',
        "a packed layer saved": ', modules_to_save=["{some0}"]',
        "bias": ', bias="all"',
        "bias of adapters": ", lora_bias=True",
        "inference": ", inference_mode=True",
        "first layer": ", layers_to_transform=[0]",
        "invoked": ", alora_invocation_tokens=[5, 6]",
        "pissa": ', init_lora_weights="pissa"',
        "olora": ', init_lora_weights="olora"',
        "gaussian": ', init_lora_weights="gaussian"',
        "loftq": ', init_lora_weights="loftq", loftq_config=LoftQConfig(loftq_bits=4)',
        "tokens": ", trainable_token_indices=[5, 6]",
        "no rank": ", rank=8",
        "ranks of no name": ', rank_pattern={"nothing": 2}',
        "alphas by name": ', alpha_pattern={"{some0}": 32}',
        "some excluded": ', exclude_modules=["{some0}"]',
        "all excluded": ', exclude_modules=r".*"',
        "a layer beyond": ", layers_to_transform=[7]",
        "tied kept": ', modules_to_save=["{embeddings}"], ensure_weight_tying=True',
        "a head that is not there": ', modules_to_save=["value_head"]',
        "random": ", init_lora_weights=False",
        "orthogonal": ', init_lora_weights="orthogonal"',
        "pissa, fast": ', init_lora_weights="pissa_niter_4"',
        "transposed": ", fan_in_fan_out=True",
        "everything dropped": ", lora_dropout=1.0",
        "ranks by name": ', rank_pattern={"{some0}": 2}',
        "alpha of zero": ", lora_alpha=0",
        "norms saved": ', modules_to_save=["norm"]',
        "bias of lora": ', bias="lora_only"',
        "layers replicated": ", layer_replication=[[0, 1], [0, 1]]",
        "dropout and rslora": ", lora_alpha=16, lora_dropout=0.05, use_rslora=True",
        "qalora": ", use_qalora=True, qalora_group_size=16",
    },
    "attached": {
        "get_peft_model": "model = get_peft_model(model, config)",
        "not cast": "model = get_peft_model(model, config, autocast_adapter_dtype=False)",
        "add_adapter": "model.add_adapter(config)",
        "dropped": "get_peft_model(model, config)",
        "twice": "model = get_peft_model(model, config)\nmodel = get_peft_model(model, config)",
        "named": 'model = get_peft_model(model, config, adapter_name="mine")',
        "mixed": "model = get_peft_model(model, config, mixed=True)",
        "on meta": "model = get_peft_model(model, config, low_cpu_mem_usage=True)",
        "by the class": "model = PeftModel(model, config)",
        "injected": "model = inject_adapter_in_model(config, model)",
        "from earlier": f"model = PeftModel.from_pretrained(model, {EARLIER})",
        "from earlier, to train": f"model = PeftModel.from_pretrained(model, {EARLIER}, is_trainable=True)",
        "earlier beside": f'model = get_peft_model(model, config)\nmodel.load_adapter({EARLIER}, adapter_name="earlier", '
        'is_trainable=True)\nmodel.set_adapter("earlier")',
        "on a merged earlier": f"model = PeftModel.from_pretrained(model, {EARLIER})\nmodel = model.merge_and_unload()\n"
        "model = get_peft_model(model, config)",
        "on earlier": f"model = PeftModel.from_pretrained(model, {EARLIER})\nmodel = get_peft_model(model, config)",
        "earlier by transformers": f"model.load_adapter({EARLIER})",
        "from a folder that is not there": 'model = PeftModel.from_pretrained(model, "earlier/checkpoint-500")',
    },
    "adapted": {
        "plain": "",
        "counted": "model.print_trainable_parameters()",
        "frozen": "model.requires_grad_(False)",
        "frozen one by one": "for parameter in model.parameters():\n    parameter.requires_grad = False",
        "everything trains": "for parameter in model.parameters():\n    if parameter.is_floating_point():\n"
        "        parameter.requires_grad_(True)",
        "half": _TRAINED + "half()",
        "bfloat16": _TRAINED + "bfloat16()",
        "in float32": _TRAINED + "to(torch.float32)",
        "cast whole": "model = model.to(torch.bfloat16)",
        "merged": "model.merge_adapter()",
        "merged and unloaded": "model = model.merge_and_unload()",
        "unloaded": "model = model.unload()",
        "second": 'model.add_adapter("second", config)',
        "second active": 'model.add_adapter("second", config)\nmodel.set_adapter("second")',
        "both active": 'model.add_adapter("second", config)\nmodel.base_model.set_adapter(["default", "second"])',
        "deleted": 'model.add_adapter("second", config)\nmodel.delete_adapter("default")',
        "disabled": "model.base_model.disable_adapter_layers()",
        "disabled and enabled": "model.base_model.disable_adapter_layers()\nmodel.base_model.enable_adapter_layers()",
        "saved and loaded": "model.save_pretrained(folder)\nmodel = PeftModel.from_pretrained(model.unload(), folder)",
        "saved and loaded to train": "model.save_pretrained(folder)\n"
        "model = PeftModel.from_pretrained(model.unload(), folder, is_trainable=True)",
        "loaded beside": 'model.save_pretrained(folder)\nmodel.load_adapter(folder, "loaded")\nmodel.set_adapter("loaded")',
        "loaded over": "model.save_pretrained(folder)\nmodel = PeftModel.from_pretrained(model, folder)",
        "layers frozen": _EACH + '    if ".0." in name:\n        parameter.requires_grad = False',
        "only B trains": _EACH + '    parameter.requires_grad = "lora_B" in name',
        "only A trains": _EACH + '    parameter.requires_grad = "lora_A" in name',
        "zeroed": _EACH + '    if "lora_" in name:\n        torch.nn.init.zeros_(parameter)',
        "scaled to zero": 'for module in model.modules():\n    if hasattr(module, "set_scale"):\n'
        '        module.set_scale("default", 0)',
        "weighted": 'model.add_adapter("second", config)\n'
        'model.add_weighted_adapter(["default", "second"], [0.5, 0.5], "both", combination_type="linear")\n'
        'model.set_adapter("both")',
        "merged and unmerged": "model.merge_adapter()\nmodel.unmerge_adapter()",
        "state loaded": "set_peft_model_state_dict(model, get_peft_model_state_dict(model))",
        "cast by peft": "cast_mixed_precision_params(model, dtype=torch.bfloat16)",
        "loaded with little memory": "model.save_pretrained(folder)\n"
        "model = PeftModel.from_pretrained(model.unload(), folder, is_trainable=True, low_cpu_mem_usage=True)",
        "run in inference mode": "with torch.inference_mode():\n    model(input_ids=torch.tensor([[10, 11, 12]]))",
        "generated": "model.eval()\nmodel.generate(input_ids=torch.tensor([[10, 11, 12]]), max_new_tokens=2)\nmodel.train()",
        "evaluated": "model.eval()",
        "checkpointed": "model.gradient_checkpointing_enable()",
        "hook": "model.enable_input_require_grads()",
        "switched back": 'model.add_adapter("second", config)\nmodel.set_adapter("second")\nmodel.set_adapter("default")',
        "merged and adapted anew": "model = model.merge_and_unload()\nmodel = get_peft_model(model, config)",
        "norms train, too": _EACH + '    if "norm" in name:\n        parameter.requires_grad_(True)',
        "embeddings train, too": "model.get_input_embeddings().weight.requires_grad_(True)",
        "last layers alone": _EACH + '    parameter.requires_grad = "lora_" in name and ".1." in name',
        "gradients halved": "for parameter in model.parameters():\n    if parameter.requires_grad:\n"
        "        parameter.register_hook(lambda gradient: gradient * 0.5)",
        "gradients zeroed": "for parameter in model.parameters():\n    if parameter.requires_grad:\n"
        "        parameter.register_hook(torch.zeros_like)",
        "own state loaded": "model.load_state_dict(model.state_dict())",
        "cast as in QLoRA": _MODULES + "    if isinstance(module, LoraLayer):\n        module.to(torch.bfloat16)\n"
        '    if "norm" in name:\n        module.to(torch.float32)\n'
        '    if ("{head}" in name or "{embeddings}" in name) and hasattr(module, "weight"):\n'
        "        if module.weight.dtype == torch.float32:\n            module.to(torch.bfloat16)",
        "saved and loaded on another base": "model.save_pretrained(folder)\n"
        "model = PeftModel.from_pretrained({class}.from_pretrained({name}), folder, is_trainable=True)",
        "loaded by the path of the adapters": "model.save_pretrained(folder)\n"
        "model = AutoPeftModelForCausalLM.from_pretrained(folder, is_trainable=True)",
    },
    "earlier": {
        "nothing": "",
        "trained": _TRAINED_BEFORE,
        "trained and adapted anew": f"{_TRAINED_BEFORE}\nmodel = model.merge_and_unload()\n"
        "model = get_peft_model(model, config)",
        "trained and unloaded": f"{_TRAINED_BEFORE}\nmodel = model.unload()\nmodel = get_peft_model(model, config)",
        "trained, a second to train": f'{_TRAINED_BEFORE}\nmodel.add_adapter("second", config)\nmodel.set_adapter("second")',
        "trained, saved and loaded": f'{_TRAINED_BEFORE}\nmodel.save_pretrained("first")\n'
        'model = PeftModel.from_pretrained(model.unload(), "first", is_trainable=True)',
        "trained, saved and loaded to infer": f'{_TRAINED_BEFORE}\nmodel.save_pretrained("first")\n'
        'model = PeftModel.from_pretrained(model.unload(), "first")',
        "trained and merged": f"{_TRAINED_BEFORE}\nmodel.merge_adapter()",
        "trained by a Trainer": "data = Dataset.from_dict({name: values.tolist() for name, values in batch.items()})\n"
        'first = TrainingArguments("first", max_steps=1, per_device_train_batch_size=2, use_cpu=True, report_to="none", '
        'save_strategy="no")\nTrainer(model=model, args=first, train_dataset=data).train()',
        "evaluated": "model.eval()\nwith torch.no_grad():\n    model(**batch)\nmodel.train()",
        "evaluated in inference mode": "model.eval()\nwith torch.inference_mode():\n    model(**batch)",
        "frozen and thawed": "model.requires_grad_(False)\n"
        + _EACH
        + '    if "lora_" in name:\n        parameter.requires_grad = True',
    },
    "wrapped": {
        "no": "",
        "compiled": 'model = torch.compile(model, backend="eager")',
        "ddp": "model = DistributedDataParallel(model)",
        "ddp, static": "model = DistributedDataParallel(model, static_graph=True)",
        "data parallel": "model = torch.nn.DataParallel(model)",
        "in a module": "class Wrapped(torch.nn.Module):\n    def __init__(self, model):\n        super().__init__()\n"
        "        self.model = model\n\n    def forward(self, **batch):\n        return self.model(**batch)\n\n"
        "model = Wrapped(model)",
        "ddp, unused": "model = DistributedDataParallel(model, find_unused_parameters=True)",
    },
}
