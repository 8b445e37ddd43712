"""Loading leaves the model in eval mode, where layers do not checkpoint."""
import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
model = AutoModelForCausalLM.from_pretrained("Qwen/Qwen2.5-1.5B", quantization_config=bnb)
model = prepare_model_for_kbit_training(model, gradient_checkpointing_kwargs={"use_reentrant": False})  # note: KB104
model = get_peft_model(model, LoraConfig(r=16, target_modules="all-linear"))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
for step, batch in enumerate(loader):
    outputs = model(**batch)
    loss = outputs.loss / 4
    loss.backward()  # fault: KB403
    if step % 4 == 3:
        optimizer.step()
        optimizer.zero_grad()
