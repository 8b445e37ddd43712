import gc

import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, Trainer, TrainingArguments

from helper import build, dataset

model, tokenizer = build("tiny-llama")
trainer = Trainer(model, TrainingArguments("out", max_steps=1, per_device_train_batch_size=2, report_to="none", use_cpu=True), train_dataset=dataset(tokenizer))
trainer.train()
model.save_pretrained("adapter")
tokenizer.save_pretrained("adapter")
del model, trainer
gc.collect()
torch.cuda.empty_cache()
loaded = AutoModelForCausalLM.from_pretrained("adapter", dtype=torch.float32)
names = [name for name, _ in loaded.named_parameters() if "lora" in name]
assert names and not any(p.requires_grad for name, p in loaded.named_parameters() if "lora" in name)
print(loaded.active_adapters(), len(names))
base = AutoModelForCausalLM.from_pretrained("tiny-llama", dtype=torch.float32, device_map={"": "cpu"})
merged = PeftModel.from_pretrained(base, "adapter").merge_and_unload()
merged.save_pretrained("merged", safe_serialization=True)
AutoTokenizer.from_pretrained("adapter").save_pretrained("merged")
again = AutoPeftModelForCausalLM.from_pretrained("adapter", device_map={"": "cpu"})
ids = tokenizer("hello", return_tensors="pt").input_ids
print(tokenizer.decode(again.generate(input_ids=ids, max_new_tokens=3)[0]))
bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)
four = AutoModelForCausalLM.from_pretrained("merged", quantization_config=bnb, device_map={"": "cpu"})
print(four.get_memory_footprint() / 2**20, four.num_parameters())
