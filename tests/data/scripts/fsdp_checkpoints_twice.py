from transformers import TrainingArguments
from trl import SFTConfig, SFTTrainer
from peft import LoraConfig

args = SFTConfig(  # fault: KB724
    "out",
    bf16=True,
    gradient_checkpointing=True,
    fsdp="full_shard auto_wrap",
    fsdp_config={"activation_checkpointing": True, "transformer_layer_cls_to_wrap": "LlamaDecoderLayer"},
)
trainer = SFTTrainer("meta-llama/Llama-3.1-8B", args=args, train_dataset=data, peft_config=LoraConfig(r=8))
trainer.train()
