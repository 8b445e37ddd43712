"""Loads an adapter to answer questions; nothing is trained here, so frozen adapters are right."""
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

base = AutoModelForCausalLM.from_pretrained(
    "meta-llama/Llama-3.1-8B",
    quantization_config=BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
    ),
    device_map="auto",
)
model = PeftModel.from_pretrained(base, "adapter").eval()
tokenizer = AutoTokenizer.from_pretrained("meta-llama/Llama-3.1-8B")
with torch.inference_mode():
    inputs = tokenizer("Why is the sky blue?", return_tensors="pt").to("cuda")
    print(tokenizer.decode(model.generate(**inputs, max_new_tokens=64)[0]))
