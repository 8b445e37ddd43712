from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, GPTQConfig, Trainer, TrainingArguments

config = GPTQConfig(bits=4, backend="auto_trainable")
model = AutoModelForCausalLM.from_pretrained("TheBloke/Llama-2-7B-GPTQ", quantization_config=config, device_map="auto")
model = prepare_model_for_kbit_training(model)  # note: KB401
model = get_peft_model(model, LoraConfig(r=8, target_modules=["q_proj", "v_proj"]))
Trainer(model=model, args=TrainingArguments("o", bf16=True), train_dataset=data).train()
