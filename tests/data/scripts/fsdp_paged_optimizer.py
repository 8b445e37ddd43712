"""transformers 5 shards with FSDP2 where no version is given; bitsandbytes' optimizers cannot step its parameters."""
import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from trl import SFTConfig, SFTTrainer

nf4 = BitsAndBytesConfig(
    load_in_4bit=True,
    bnb_4bit_quant_type="nf4",
    bnb_4bit_compute_dtype=torch.bfloat16,
    bnb_4bit_quant_storage=torch.bfloat16,
)
model = AutoModelForCausalLM.from_pretrained("org/base", quantization_config=nf4, dtype=torch.bfloat16)
args = SFTConfig(
    "out",
    gradient_checkpointing=False,
    optim="paged_adamw_8bit",  # fault: KB709
    fsdp="full_shard auto_wrap",
    fsdp_config={"activation_checkpointing": True},
)
SFTTrainer(model, args, train_dataset=data, peft_config=LoraConfig(target_modules="all-linear")).train()
