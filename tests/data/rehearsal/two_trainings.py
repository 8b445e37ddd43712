import torch
from datasets import load_dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

COMMON = dict(per_device_train_batch_size=2, max_steps=1, report_to="none", use_cpu=True, bf16=False, max_length=64)
tokenizer = AutoTokenizer.from_pretrained("tiny-llama")
model = AutoModelForCausalLM.from_pretrained(
    "tiny-llama", quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32), device_map={"": "cpu"}
)
model = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
data = load_dataset("json", data_files="data.jsonl", split="train")
sft = SFTTrainer(model=model, processing_class=tokenizer, train_dataset=data.select_columns(["text"]), args=SFTConfig(output_dir="sft", **COMMON))
sft.train()
dpo = DPOTrainer(
    model=sft.model, processing_class=tokenizer, args=DPOConfig(output_dir="dpo", **COMMON),
    train_dataset=data.select_columns(["prompt", "chosen", "rejected"]),
)
dpo.train()
