"""What scripts do with weights behind the training: compare, restore, read the saved file, unpack the base and merge."""

import copy
import os

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from datasets import load_dataset
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
)

bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.float32)


def load():
    return AutoModelForCausalLM.from_pretrained("tiny-llama", quantization_config=bnb, device_map={"": "cpu"})


tokenizer = AutoTokenizer.from_pretrained("tiny-llama")
tokenizer.pad_token = tokenizer.eos_token
data = load_dataset("json", data_files="data.jsonl", split="train")
data = data.map(lambda row: tokenizer(row["text"], truncation=True, max_length=32), remove_columns=data.column_names)
model = get_peft_model(load(), LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
before = {name: held.clone() for name, held in get_peft_model_state_dict(model).items()}
arguments = TrainingArguments("out", max_steps=2, learning_rate=1e-2, use_cpu=True, report_to="none", save_strategy="no")
trainer = Trainer(
    model=model, args=arguments, train_dataset=data, data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False)
)
trainer.train()
after = get_peft_model_state_dict(model)
assert before.keys() == after.keys()
assert any(not torch.equal(before[name], after[name]) for name in after), "nothing moved"
assert trainer.state.log_history[-1]["train_loss"] < 1000
assert set_peft_model_state_dict(model, before).unexpected_keys == []
model.save_pretrained("out/adapter")
saved = load_file("out/adapter/adapter_model.safetensors", device="cpu")
assert {tuple(one.shape) for one in saved.values()} >= {(4, 64)}, {tuple(one.shape) for one in saved.values()}
with safe_open("out/adapter/adapter_model.safetensors", framework="pt") as file:
    assert len(list(file.keys())) == len(saved) == len(after)
torch.save(after, "out/state.pt")
assert torch.load("out/state.pt", map_location="cpu").keys() == after.keys()

base = load()
for name, module in list(base.named_modules()):
    if isinstance(module, Linear4bit):
        state = copy.deepcopy(module.weight.quant_state)
        state.dtype = torch.float32
        plain = torch.nn.Linear(module.in_features, module.out_features, bias=False)
        plain.weight = torch.nn.Parameter(dequantize_4bit(module.weight.data, quant_state=state))
        base.set_submodule(name, plain)
merged = PeftModel.from_pretrained(base, "out/adapter").merge_and_unload()
assert not any("lora" in name for name, _ in merged.named_parameters())
assert tuple(merged.model.layers[0].self_attn.q_proj.weight.shape) == (64, 64)
assert not any(isinstance(one, Linear4bit) for one in load().dequantize().modules())
os.remove("out/state.pt")
