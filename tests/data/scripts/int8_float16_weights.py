from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Trainer, TrainingArguments

bnb = BitsAndBytesConfig(
    load_in_8bit=True,
    llm_int8_threshold=6.0,
    llm_int8_has_fp16_weight=True,  # fault: KB525
)
model = AutoModelForCausalLM.from_pretrained("org/base", quantization_config=bnb)
model = get_peft_model(model, LoraConfig(r=8))
args = TrainingArguments("o", gradient_checkpointing=True)
Trainer(model=model, args=args, train_dataset=data).train()
