import torch
from datasets import load_dataset
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, DataCollatorForLanguageModeling, Trainer, TrainingArguments


class WeightedTrainer(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        shift = outputs.logits[..., :-1, :].contiguous()
        loss = torch.nn.functional.cross_entropy(shift.view(-1, shift.size(-1)), labels[..., 1:].reshape(-1))
        return (loss, outputs) if return_outputs else loss


tokenizer = AutoTokenizer.from_pretrained("tiny-llama")
model = AutoModelForCausalLM.from_pretrained(
    "tiny-llama", quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32), device_map={"": "cpu"}
)
model = get_peft_model(prepare_model_for_kbit_training(model), LoraConfig(r=4, target_modules=["q_proj"]))
data = load_dataset("json", data_files="data.jsonl", split="train")
data = data.map(lambda row: tokenizer(row["text"], truncation=True, max_length=32), remove_columns=data.column_names)
args = TrainingArguments("weighted", max_steps=1, per_device_train_batch_size=2, report_to="none", use_cpu=True)
trainer = WeightedTrainer(model=model, args=args, train_dataset=data, data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False))
trainer.train()
