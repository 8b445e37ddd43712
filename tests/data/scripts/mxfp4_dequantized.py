from peft import LoraConfig
from transformers import AutoModelForCausalLM, Mxfp4Config
from trl import SFTConfig, SFTTrainer

model = AutoModelForCausalLM.from_pretrained("openai/gpt-oss-20b", quantization_config=Mxfp4Config(dequantize=True))
lora = LoraConfig(r=8, target_modules=["q_proj", "v_proj"])  # note: KB602
trainer = SFTTrainer(model, args=SFTConfig("oss"), train_dataset=data, peft_config=lora)
trainer.train()
