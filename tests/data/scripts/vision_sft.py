"""A vision-language model; the base that get_peft_model has changed goes to a trainer with a config of its own."""
import torch
from transformers import Qwen2VLForConditionalGeneration, Qwen2VLProcessor, BitsAndBytesConfig
from peft import LoraConfig, get_peft_model
from trl import SFTConfig, SFTTrainer
model_id = "Qwen/Qwen2-VL-7B-Instruct"
bnb_config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_use_double_quant=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
model = Qwen2VLForConditionalGeneration.from_pretrained(model_id, device_map="auto", torch_dtype=torch.bfloat16, quantization_config=bnb_config)
processor = Qwen2VLProcessor.from_pretrained(model_id)
peft_config = LoraConfig(lora_alpha=16, lora_dropout=0.05, r=8, bias="none", target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
peft_model = get_peft_model(model, peft_config)
peft_model.print_trainable_parameters()
training_args = SFTConfig(output_dir="out", num_train_epochs=3, gradient_checkpointing=True, gradient_checkpointing_kwargs={"use_reentrant": False}, bf16=True, remove_unused_columns=False)
trainer = SFTTrainer(model=model, args=training_args, train_dataset=ds, data_collator=collate_fn, peft_config=peft_config, processing_class=processor.tokenizer)  # fault: KB631
trainer.train()
trainer.save_model(training_args.output_dir)
