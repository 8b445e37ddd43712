"""LoRA on 8 bits in the way of 2023."""
import torch
import transformers
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

base_model = "decapoda-research/llama-7b-hf"
model = transformers.AutoModelForCausalLM.from_pretrained(
    base_model,
    load_in_8bit=True,  # fault: KB522
    torch_dtype=torch.float16,
    device_map="auto",
)
model = prepare_model_for_kbit_training(model)  # note: KB401
config = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], lora_dropout=0.05, task_type="CAUSAL_LM")
model = get_peft_model(model, config)
trainer = transformers.Trainer(
    model=model,
    train_dataset=train_data,
    args=transformers.TrainingArguments(
        per_device_train_batch_size=4, warmup_steps=100, num_train_epochs=3, learning_rate=3e-4, fp16=True, output_dir="lora"
    ),
)
trainer.train()
