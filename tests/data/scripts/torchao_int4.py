"""torchao's 4-bit layout has no backward pass, and Trainer knows."""
from peft import LoraConfig, get_peft_model
from torchao.quantization import Int4WeightOnlyConfig, Int8WeightOnlyConfig
from transformers import AutoModelForCausalLM, TorchAoConfig, Trainer, TrainingArguments

args = TrainingArguments("out", bf16=True, gradient_checkpointing=True)
eight = AutoModelForCausalLM.from_pretrained("org/base", quantization_config=TorchAoConfig(Int8WeightOnlyConfig()))
Trainer(model=get_peft_model(eight, LoraConfig(r=8)), args=args, train_dataset=data).train()

four = AutoModelForCausalLM.from_pretrained("org/base", quantization_config=TorchAoConfig(quant_type=Int4WeightOnlyConfig()))
model = get_peft_model(four, LoraConfig(r=8))
Trainer(model=model, args=args, train_dataset=data).train()  # fault: KB524
