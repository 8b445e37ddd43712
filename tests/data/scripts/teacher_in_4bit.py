"""A quantized teacher that only answers, and a student that trains in full precision."""
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Trainer, TrainingArguments
teacher = AutoModelForCausalLM.from_pretrained("Qwen/Qwen2.5-14B", quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16), device_map="auto")
teacher.eval()
for p in teacher.parameters():
    p.requires_grad = False
student = AutoModelForCausalLM.from_pretrained("Qwen/Qwen2.5-0.5B", dtype=torch.bfloat16)


class KD(Trainer):
    def __init__(self, *args, teacher=None, **kw):
        super().__init__(*args, **kw)
        self.teacher = teacher

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        out = model(**inputs)
        with torch.no_grad():
            t = self.teacher(**inputs).logits
        kl = torch.nn.functional.kl_div(out.logits.log_softmax(-1), t.softmax(-1), reduction="batchmean")
        loss = out.loss + kl
        return (loss, out) if return_outputs else loss


KD(model=student, args=TrainingArguments("o", bf16=True, gradient_checkpointing=True), train_dataset=ds, teacher=teacher).train()
