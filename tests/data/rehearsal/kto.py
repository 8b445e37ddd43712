import torch
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from trl import KTOConfig, KTOTrainer

model = AutoModelForCausalLM.from_pretrained(
    "tiny-llama", device_map={"": "cpu"},
    quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32),
)
tokenizer = AutoTokenizer.from_pretrained("tiny-llama")
ds = load_dataset("json", data_files="data.jsonl", split="train").select_columns(["prompt", "completion", "label"])
ds = ds.map(lambda row: {"label": bool(row["label"])})
trainer = KTOTrainer(
    model=model,
    args=KTOConfig(output_dir="kto", per_device_train_batch_size=4, max_steps=1, report_to="none", use_cpu=True, bf16=False, max_length=64),
    train_dataset=ds,
    processing_class=tokenizer,
    peft_config=LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
)
trainer.train()
trainer.save_model("kto/final")
