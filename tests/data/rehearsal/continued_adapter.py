import torch
from datasets import load_dataset
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, DataCollatorForLanguageModeling, Trainer, TrainingArguments

bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)
base = AutoModelForCausalLM.from_pretrained("tiny-llama", quantization_config=bnb, device_map={"": "cpu"})
get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "v_proj"])).save_pretrained("stage1")
base = AutoModelForCausalLM.from_pretrained("tiny-llama", quantization_config=bnb, device_map={"": "cpu"})
model = PeftModel.from_pretrained(base, "stage1", is_trainable=True)
tokenizer = AutoTokenizer.from_pretrained("tiny-llama")
data = load_dataset("json", data_files="data.jsonl", split="train")
data = data.map(lambda row: tokenizer(row["text"], truncation=True, max_length=32), remove_columns=data.column_names)
args = TrainingArguments("stage2", max_steps=1, per_device_train_batch_size=2, report_to="none", use_cpu=True)
Trainer(model=model, args=args, train_dataset=data, data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False)).train()
