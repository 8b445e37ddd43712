"""Kinds of faults that an expert sees in a script, and of look-alikes: each script marks the lines of all its findings."""

from __future__ import annotations

import re

import pytest
from script_cases import IMPORTS, document

from kbitlint.audit.scripts import run
from kbitlint.context import TrainingContext
from kbitlint.registry import all_rules

HEAD = IMPORTS + "import argparse, sys\nfrom dataclasses import dataclass, field\n"
HEAD += "import transformers\nfrom transformers import HfArgumentParser, AutoConfig, pipeline\n"
"from peft import AutoPeftModelForCausalLM\n"
NF4 = 'bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)\n'
LOAD = NF4 + 'model = AutoModelForCausalLM.from_pretrained("lab/base-7b", quantization_config=bnb)\n'
CALM = '{"use_reentrant": False}'
LORA = 'lora = LoraConfig(r=8, target_modules=["q_proj", "v_proj"])\n'
ADAPT = LORA + "model = get_peft_model(model, lora)\n"
TRAIN = (
    'Trainer(model=model, args=TrainingArguments("out", bf16=True, gradient_checkpointing=True), train_dataset=data).train()\n'
)
PLAIN = 'Trainer(model=model, args=TrainingArguments("out", bf16=True), train_dataset=data).train()'

FLAG = """
@dataclass
class Options(transformers.TrainingArguments):
    width: int = field(default=16)

(options,) = HfArgumentParser((Options,)).parse_args_into_dataclasses()
extra = {}
if options.width in [4, 8]:
    extra["quantization_config"] = BitsAndBytesConfig(
        load_in_4bit=options.width == 4,
        load_in_8bit=options.width == 8,
        llm_int8_skip_modules=["bridge"],  #! KB523
        bnb_4bit_compute_typ=torch.bfloat16,  #! KB521
    )
model = AutoModelForCausalLM.from_pretrained("lab/base-7b", **extra)
"""
ARGPARSE = """
parser = argparse.ArgumentParser()
parser.add_argument("--bits", type=int, default=16)
options = parser.parse_args()
kwargs = {}
if options.bits == 8:
    kwargs["quantization_config"] = BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=["bridge"])  #! KB523
model = AutoModelForCausalLM.from_pretrained("lab/base-7b", **kwargs)
"""
TRUTH = (
    LOAD
    + """
def fit(args):
    if args.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    SFTTrainer(model=model, args=args, train_dataset=data, peft_config=LoraConfig(r=8)).train()

(args,) = HfArgumentParser((TrainingArguments,)).parse_args_into_dataclasses()
if args.gradient_checkpointing:
    args.gradient_checkpointing_kwargs = {"use_reentrant": True}  #! KB401
fit(args)
"""
)
MANY_WAYS = (
    "p = argparse.ArgumentParser()\nfor name in 'abcdefgh':\n    p.add_argument(f'--{name}', action='store_true')\n"
    "p.add_argument('--full', action='store_true')\np.add_argument('--adapter')\no = p.parse_args()\n"
    + LOAD
    + "args = TrainingArguments('out', bf16=True, gradient_checkpointing=True)\n"
    + "".join(f"if o.{name}:\n    args.optim = '{name}'\n" for name in "abcdefgh")
    + """
if not o.full:
    if o.adapter is None:
        model = get_peft_model(model, LoraConfig(r=8))
    else:
        model = PeftModel.from_pretrained(model, o.adapter)  #! KB202
    Trainer(model=model, args=args, train_dataset=data).train()
"""
)
LOADER = """
class Loader:
    def __init__(self, cfg):
        self.cfg, self.kwargs = cfg, {}

    def quantize(self):
        if self.cfg.device:
            self.kwargs["device_map"] = self.cfg.device
        if self.cfg.kind == "fp8":
            self.kwargs["dtype"] = torch.bfloat16
        if self.cfg.stored == "gptq":
            self.kwargs["quantization_config"] = transformers.GPTQConfig(**self.cfg.own)
        elif self.cfg.stored == "awq":
            self.kwargs["quantization_config"] = transformers.AwqConfig(**self.cfg.own)
        elif self.cfg.adapter == "lora" and self.cfg.load_in_8bit:
            made = {"load_in_8bit": True}
            if self.cfg.kind == "hybrid":
                made["llm_int8_skip_modules"] = ["mixer"]  #! KB523
            self.kwargs["quantization_config"] = BitsAndBytesConfig(**made)

    def load(self):
        self.quantize()
        return AutoModelForCausalLM.from_pretrained(self.cfg.name, **self.kwargs)
"""
HOOK = (
    "from accelerate import Accelerator\ndef restore(models, folder):\n    for one in models:\n"
    "        PeftModel.from_pretrained(one.base_model.model, folder)  #! KB202\n"
    "accelerator = Accelerator()\n"
    + LOAD
    + "model.gradient_checkpointing_enable()\n"
    + ADAPT
    + "optimizer = torch.optim.AdamW(model.parameters())\n"
    "model, optimizer = accelerator.prepare(model, optimizer)\naccelerator.register_load_state_pre_hook(restore)\n"
    "model.train()\nfor batch in loader:\n    accelerator.backward(model(**batch).loss)\n    optimizer.step()\n"
    "    optimizer.zero_grad()\n"
)
WRAPPED_HEAD = """
model = AutoModelForCausalLM.from_pretrained("lab/base-1b", quantization_config=BitsAndBytesConfig(load_in_8bit=True))

class Wide(torch.nn.Sequential):
    def forward(self, x):
        return super().forward(x).to(torch.float32)

for p in model.parameters():
    p.requires_grad = False
    if p.ndim == 1:
        p.data = p.data.float()  #! KB628
model.lm_head = Wide(model.lm_head)  #! KB628
"""
GPU_DECIDES = """
half = torch.bfloat16 if torch.cuda.get_device_capability()[0] >= 8 else torch.float16
model = AutoModelForCausalLM.from_pretrained(
    "google/gemma-3-1b-pt",
    dtype=half,  #! KB121
    quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=half),
)
"""
HALF = NF4.replace("bfloat16", "float16")

FAULTS = {
    "the default of a dataclass is not what happens": FLAG,
    "the default of argparse is not what happens": ARGPARSE,
    "the word version in a comment": "k = {}\nif '--small' in sys.argv:\n    k['load_in_8bit'] = True  #! KB522\n"
    "model = AutoModelForCausalLM.from_pretrained('lab/base', **k)\n# Licensed under the Apache License, Version 2.0\n",
    "what a branch has found stays known": TRUTH,
    "a branch behind many others": MANY_WAYS,
    "the last branch of a loader": LOADER,
    "an argument on some paths": "made = {'load_in_8bit': True}\nif '--hybrid' in sys.argv:\n"
    "    made['llm_int8_skip_modules'] = ['mixer']  #! KB523\n"
    "model = AutoModelForCausalLM.from_pretrained('lab/base', quantization_config=BitsAndBytesConfig(**made))\n",
    "a PeftModel and peft_config": LOAD
    + ADAPT
    + "t = SFTTrainer(model=model, args=SFTConfig('o'), train_dataset=d, peft_config=lora)  #! KB535\nt.train()\n",
    "adapters after those of a trainer": LOAD
    + LORA
    + "t = SFTTrainer(model=model, args=SFTConfig('o'), train_dataset=d, peft_config=lora)\nt.train()\n"
    "model = get_peft_model(model, LoraConfig.from_pretrained('o'))  #! KB631\n",
    "the base of a PeftModel for a trainer": LOAD
    + LORA
    + "wrapped = get_peft_model(model, lora)\nwrapped.print_trainable_parameters()\n"
    "t = SFTTrainer(model=model, args=SFTConfig('o'), train_dataset=d, peft_config=lora)  #! KB631\nt.train()\n",
    "float16 on a family in bfloat16": HALF.replace("\n", "  #! KB121\n")
    + "model = AutoModelForCausalLM.from_pretrained('Qwen/Qwen3-8B', quantization_config=bnb)\n"
    + ADAPT
    + "Trainer(model=model, args=TrainingArguments('o', fp16=True, gradient_checkpointing=True)).train()\n",
    "mixed precision in float16 on Gemma": NF4
    + "model = AutoModelForCausalLM.from_pretrained('google/gemma-2-2b', quantization_config=bnb)\n"
    + ADAPT
    + "Trainer(model=model, args=TrainingArguments('o', fp16=True, gradient_checkpointing=True)).train()  #! KB121\n",
    "the GPU decides the dtype": GPU_DECIDES,
    "the cast of a large vocabulary": NF4
    + "model = AutoModelForCausalLM.from_pretrained('NousResearch/Meta-Llama-3.1-8B', quantization_config=bnb)\n"
    f"model = prepare_model_for_kbit_training(model, gradient_checkpointing_kwargs={CALM})  #! KB104\n" + ADAPT + TRAIN,
    "a name that begins no module": "bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type='nf4', "
    "bnb_4bit_compute_dtype=torch.bfloat16,\n"
    "    llm_int8_skip_modules=['vision_tower', 'lm_head'])  #! KB124\n"
    "model = transformers.AutoModelForImageTextToText.from_pretrained('llava-hf/llava-1.5-7b-hf', quantization_config=bnb)\n",
    "experts that become float32, and as targets": NF4
    + "model = AutoModelForCausalLM.from_pretrained('mistralai/Mixtral-8x22B-v0.1', quantization_config=bnb)  #! KB504\n"
    f"model = prepare_model_for_kbit_training(model, gradient_checkpointing_kwargs={CALM})  #! KB104\n"
    "model = get_peft_model(model, LoraConfig(target_modules=['q_proj', 'w1', 'w2', 'w3'], lora_dropout=0.1))  #! KB532\n"
    + TRAIN,
    "experts that no target reaches": NF4
    + "model = AutoModelForCausalLM.from_pretrained('Qwen/Qwen3-30B-A3B', quantization_config=bnb)  #! KB504\n"
    + ADAPT.replace("\n", "  #! KB602\n", 1)
    + TRAIN,
    "targets of code that transformers replaced": HALF
    + "model = AutoModelForCausalLM.from_pretrained('microsoft/phi-2', quantization_config=bnb)\n"
    "model = get_peft_model(model, LoraConfig(target_modules=['Wqkv', 'fc1', 'fc2']))  #! KB601\n",
    "prepared too late in a helper": f"def adapted(base):\n    model = get_peft_model(base, LoraConfig(r=8))\n"
    f"    prepare_model_for_kbit_training(model, gradient_checkpointing_kwargs={CALM})  #! KB202\n    return model\n",
    "a helper of TRL adds tokens": "from trl import clone_chat_template\n"
    + LOAD
    + "tok = AutoTokenizer.from_pretrained('lab/base-7b')\n"
    "model, tok, new = clone_chat_template(model, tok, 'lab/chat')  #! KB622\n"
    "args = SFTConfig('o', gradient_checkpointing_kwargs={'use_reentrant': True})  #! KB401\n"
    "SFTTrainer(model=model, args=args, train_dataset=d, peft_config=LoraConfig(target_modules='all-linear')).train()\n",
    "tokens of the tokenizer's own call": "def build(name):\n    "
    + LOAD.replace("\n", "\n    ").replace('"lab/base-7b"', "name")
    + "lora = LoraConfig(target_modules='all-linear')\n"
    "    tok = AutoTokenizer.from_pretrained(name, additional_special_tokens=['<a>'])\n"
    "    model.resize_token_embeddings(len(tok), pad_to_multiple_of=8)  #! KB622\n    return model, lora, tok\n",
    "a helper that is named after a resize": "from lab.tools import resize_embeddings_for_tokens\n"
    + LOAD
    + ADAPT
    + "resize_embeddings_for_tokens(tokenizer=tok, model=model, new=['<'])  #! KB622\n"
    + TRAIN,
    "a stored quantization by name": 'bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", '
    "bnb_4bit_compute_dtype=torch.float32)  #! KB502\n"
    "SFTTrainer(model='lab/some-8b-bnb-4bit', args=SFTConfig('o'), train_dataset=d, quantization_config=bnb, "
    "peft_config=LoraConfig(r=8)).train()  #! KB526\n",
    "the config of a trainer": NF4 + "args = SFTConfig('o', fp16=True, model_init_kwargs={'device_map': 'auto'})  #! KB120\n"
    "SFTTrainer(model='lab/base-7b', args=args, train_dataset=d, quantization_config=bnb, "
    "peft_config=LoraConfig(r=8)).train()\n",
    "a hook that loads frozen adapters": HOOK,
    "layers that are checkpointed twice": "from torch.distributed.algorithms._checkpoint.checkpoint_wrapper "
    "import apply_activation_checkpointing\n"
    + LOAD
    + "model.gradient_checkpointing_enable()\n"
    + ADAPT
    + "apply_activation_checkpointing(model, check_fn=choose)  #! KB724\n",
    "a key of a stored config": "config = AutoConfig.from_pretrained('lab/base-GPTQ')\nown = config.quantization_config\n"
    "own['use_exllama'] = False  #! KB521\nmodel = AutoModelForCausalLM.from_pretrained('lab/base-GPTQ', config=config)\n",
    "a name on an unknown object": "from lab import Settings\ns = Settings()\ns.base = 'google/gemma-2-9b'\n"
    + HALF.replace("\n", "  #! KB121\n")
    + "model = AutoModelForCausalLM.from_pretrained(s.base, quantization_config=bnb)\n",
    "a head in float32": WRAPPED_HEAD,
    "a request that is overruled": LOAD
    + "model = prepare_model_for_kbit_training(model, gradient_checkpointing_kwargs={'use_reentrant': True})  #! KB533\n"
    "SFTTrainer(model=model, args=SFTConfig('o', gradient_checkpointing=True), train_dataset=d, "
    "peft_config=LoraConfig(r=8)).train()\n",
    "hooks of two calls": LOAD
    + "model.gradient_checkpointing_enable()  #! KB302\nmodel = prepare_model_for_kbit_training(model)  #! KB401\n"
    + ADAPT
    + PLAIN,
    "a removed function prepares all the same": "from peft import prepare_model_for_int8_training  #! KB522\n"
    + LOAD
    + "model = prepare_model_for_int8_training(model)  #! KB401\n"
    + ADAPT
    + PLAIN,
    "a version in a docstring": "model = AutoModelForCausalLM.from_pretrained('lab/base-1b', load_in_8bit=True)  #! KB522\n"
    '"""The script of 2023 needed transformers==4.30.0 instead."""\n',
    "one call on two paths": "fast = torch.cuda.get_device_capability()[0] >= 8\nif fast:\n    import flash_attn\n"
    + LOAD
    + "model = get_peft_model(prepare_model_for_kbit_training(model), LoraConfig(r=8))\n"
    "args = TrainingArguments('o', per_device_train_batch_size=6 if fast else 4, bf16=True)\n"
    "Trainer(model=model, args=args, train_dataset=d).train()\n".replace("\n", "\n"),
    "virtual tokens are not merged": "from peft import PromptEncoderConfig\n"
    + LOAD
    + "t = SFTTrainer(model=model, args=SFTConfig('o'), train_dataset=d, "
    "peft_config=PromptEncoderConfig(num_virtual_tokens=8))\n"
    "t.train()\nt.model.merge_and_unload()  #! KB621\n",
    "a merge of the base": LOAD
    + "t = SFTTrainer(model=model, args=SFTConfig('o'), train_dataset=d, peft_config=LoraConfig(r=8))\n"
    "t.train()\nmodel.merge_and_unload()  #! KB621\n",
    "a saved config may be in inference mode": LOAD
    + "model = get_peft_model(model, LoraConfig.from_pretrained('folder'))  #! KB202\n"
    + TRAIN,
    "a dropped argument of HQQ": "config = transformers.HqqConfig(nbits=4, quant_zero=True, axis=0)  #! KB521\n",
    "one typo": "bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type='nf4', "
    "bnb_4bit_compute_typ=torch.bfloat16)  #! KB521\n",
    "a class that the command line names": NF4.replace("\n", "  #! KB528\n")
    + "model = transformers.AutoModelForTokenClassification.from_pretrained(sys.argv[1], quantization_config=bnb)\n"
    "model = get_peft_model(model, LoraConfig(task_type='TOKEN_CLS', target_modules=['query']))\n",
}
FAULTS["one call on two paths"] = FAULTS["one call on two paths"].replace("LoraConfig(r=8))\n", "LoraConfig(r=8))  #! KB401\n")

CLEAN = {
    "float16 for generation": "from peft import AutoPeftModelForCausalLM\n"
    "model = AutoPeftModelForCausalLM.from_pretrained('gemma-2b-mine', "
    "dtype=torch.float16)\npipe = pipeline('text-generation', model=model)\n",
    "a neutral argument of HQQ": "config = transformers.HqqConfig(nbits=4, quant_zero=False, quant_scale=False, axis=0)\n",
    "a model through an unknown function": "from lab import accelerator\n"
    + LOAD
    + "model = prepare_model_for_kbit_training(model)\n"
    + ADAPT
    + "model = accelerator.prepare_model(model)\n"
    + TRAIN,
    "a skip list with the head": FLAG.replace('["bridge"],  #! KB523', '["bridge", "lm_head"],').replace(
        "compute_typ=torch.bfloat16,  #! KB521", "compute_dtype=torch.bfloat16,"
    ),
    "the part by its whole name": "bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type='nf4', "
    "bnb_4bit_compute_dtype=torch.bfloat16,\n"
    "    llm_int8_skip_modules=['model.vision_tower', 'lm_head'])\n"
    "model = transformers.AutoModelForImageTextToText.from_pretrained('llava-hf/llava-1.5-7b-hf', quantization_config=bnb)\n",
    "a PeftModel alone": LOAD + ADAPT + "SFTTrainer(model=model, args=SFTConfig('o'), train_dataset=d).train()\n",
    "an unquantized name": NF4
    + "SFTTrainer(model='lab/some-8b', args=SFTConfig('o'), train_dataset=d, quantization_config=bnb, "
    "peft_config=LoraConfig(r=8)).train()\n",
    "bfloat16 on its family": NF4
    + "model = AutoModelForCausalLM.from_pretrained('Qwen/Qwen3-8B', quantization_config=bnb)\n"
    + ADAPT
    + TRAIN,
    "float16 on a family in float16": HALF
    + "model = AutoModelForCausalLM.from_pretrained('meta-llama/Llama-2-7b-hf', quantization_config=bnb)\n"
    + ADAPT
    + TRAIN.replace("bf16", "fp16"),
    "a large vocabulary that nothing casts": NF4
    + "model = AutoModelForCausalLM.from_pretrained('meta-llama/Llama-3.1-8B', quantization_config=bnb)\n"
    + ADAPT
    + TRAIN,
    "prepared first in a helper": f"def adapted(base):\n"
    f"    base = prepare_model_for_kbit_training(base, gradient_checkpointing_kwargs={CALM})\n"
    "    return get_peft_model(base, LoraConfig(r=8))\n",
    "new tokens that are trained": "from trl import clone_chat_template\n"
    + LOAD
    + "model, tok, new = clone_chat_template(model, tok, 'lab/chat')\n"
    "config = LoraConfig(target_modules='all-linear', modules_to_save=['embed_tokens', 'lm_head'])\n"
    "SFTTrainer(model=model, args=SFTConfig('o'), train_dataset=d, peft_config=config).train()\n",
}


def found(script: str) -> list[tuple[int, str]]:
    """Return (line, code) of every finding in a script, in the order of the lines."""
    read = document(HEAD + script)
    outcome, _ = run(all_rules(), read.facts, TrainingContext())
    return sorted((v.at.line - HEAD.count("\n"), v.code) for v in outcome.violations)


def marked(script: str) -> list[tuple[int, str]]:
    """Return (line, code) of every mark in a script."""
    lines = enumerate(script.split("\n"), start=1)
    return sorted((number, code) for number, line in lines for code in re.findall(r"KB\d{3}", line.partition("#!")[2]))


@pytest.mark.parametrize("script", FAULTS.values(), ids=FAULTS.keys())
def test_a_script_has_the_findings_that_it_marks_and_no_other(script):
    assert marked(script) != []
    assert found(script) == marked(script)


@pytest.mark.parametrize("script", CLEAN.values(), ids=CLEAN.keys())
def test_a_look_alike_has_no_finding(script):
    assert found(script) == []
