import torch
import transformers
from datasets import load_dataset
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

model = transformers.AutoModelForCausalLM.from_pretrained(
    "tiny-llama",
    quantization_config=transformers.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32),
    device_map={"": "cpu"},
)
tokenizer = transformers.AutoTokenizer.from_pretrained("tiny-llama")
model = prepare_model_for_kbit_training(model)
config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", lora_dropout=0.05, bias="none", task_type="CAUSAL_LM")
model = get_peft_model(model, config)


def tokenize(batch):
    return tokenizer(batch["text"], truncation=True, max_length=64)


data = load_dataset("json", data_files="data.jsonl")["train"]
data = data.map(tokenize, batched=True, remove_columns=data.column_names)
split = data.train_test_split(test_size=0.25, seed=0)
trainer = transformers.Trainer(
    model=model,
    train_dataset=split["train"],
    eval_dataset=split["test"],
    args=transformers.TrainingArguments(
        output_dir="outputs", per_device_train_batch_size=2, gradient_accumulation_steps=2, warmup_steps=1, max_steps=2,
        learning_rate=2e-4, logging_steps=1, report_to=[], use_cpu=True,
    ),
    data_collator=transformers.DataCollatorForLanguageModeling(tokenizer, mlm=False),
)
model.config.use_cache = False
trainer.train()
metrics = trainer.evaluate()
print("perplexity", torch.exp(torch.tensor(metrics["eval_loss"])).item())
model.save_pretrained("outputs/final")
