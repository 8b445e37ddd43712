from peft import LoraConfig
from transformers import AutoModelForCausalLM, Mxfp4Config
from trl import SFTConfig, SFTTrainer

model = AutoModelForCausalLM.from_pretrained("openai/gpt-oss-20b", quantization_config=Mxfp4Config())
trainer = SFTTrainer(model, args=SFTConfig("oss"), train_dataset=data, peft_config=LoraConfig(r=8))  # fault: KB524
trainer.train()
