import torch
from datasets import load_dataset
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, DataCollatorForLanguageModeling, Trainer, TrainingArguments

tokenizer = AutoTokenizer.from_pretrained("tiny-llama")
tokenizer.add_special_tokens({"additional_special_tokens": ["<tool>", "</tool>"]})
model = AutoModelForCausalLM.from_pretrained(
    "tiny-llama", quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32), device_map={"": "cpu"}
)
model.resize_token_embeddings(len(tokenizer))
model = prepare_model_for_kbit_training(model)
model = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"]))
data = load_dataset("json", data_files="data.jsonl", split="train")
data = data.map(lambda row: tokenizer("<tool> " + row["text"] + " </tool>", truncation=True, max_length=32), remove_columns=data.column_names)
args = TrainingArguments("resized", max_steps=1, per_device_train_batch_size=2, report_to="none", use_cpu=True)
trainer = Trainer(model=model, args=args, train_dataset=data, data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False))
trainer.train()
