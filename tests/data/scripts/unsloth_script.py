"""unsloth replaces loading, checkpointing and training."""
from transformers import TrainingArguments
from trl import SFTTrainer
from unsloth import FastLanguageModel  # fault: KB653

model, tokenizer = FastLanguageModel.from_pretrained("unsloth/mistral-7b-bnb-4bit", max_seq_length=2048, load_in_4bit=True)
model = FastLanguageModel.get_peft_model(
    model, r=16, target_modules=["q_proj", "v_proj"], use_gradient_checkpointing="unsloth"
)
trainer = SFTTrainer(
    model=model,
    tokenizer=tokenizer,
    train_dataset=data,
    args=TrainingArguments(per_device_train_batch_size=2, max_steps=60, fp16=True, output_dir="outputs"),
)
trainer.train()
