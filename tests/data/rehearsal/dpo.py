import torch
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from trl import DPOConfig, DPOTrainer


def main():
    quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    model = AutoModelForCausalLM.from_pretrained("tiny-llama", quantization_config=quantization, device_map={"": "cpu"})
    tokenizer = AutoTokenizer.from_pretrained("tiny-llama")
    train = load_dataset("json", data_files={"train": "data.jsonl"}, split="train").select_columns(["prompt", "chosen", "rejected"])
    args = DPOConfig(output_dir="dpo", per_device_train_batch_size=2, max_steps=1, report_to="none", use_cpu=True, bf16=False, max_length=64)
    trainer = DPOTrainer(
        model=model, args=args, train_dataset=train, processing_class=tokenizer,
        peft_config=LoraConfig(r=4, target_modules=["q_proj", "k_proj"], task_type="CAUSAL_LM"),
    )
    result = trainer.train()
    print(result.metrics["train_loss"])
    trainer.save_model()


if __name__ == "__main__":
    main()
