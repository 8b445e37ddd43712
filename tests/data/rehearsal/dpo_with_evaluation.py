import torch
from datasets import load_dataset
from peft import LoraConfig, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from trl import DPOConfig, DPOTrainer

bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)
model = AutoModelForCausalLM.from_pretrained("tiny-llama", quantization_config=bnb, device_map={"": "cpu"})
model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=True)
tokenizer = AutoTokenizer.from_pretrained("tiny-llama")
data = load_dataset("json", data_files="data.jsonl", split="train")


def to_pairs(row):
    return {
        "prompt": [{"role": "user", "content": row["prompt"]}],
        "chosen": [{"role": "assistant", "content": row["chosen"]}],
        "rejected": [{"role": "assistant", "content": row["rejected"]}],
    }


data = data.map(to_pairs, remove_columns=data.column_names).filter(lambda row: row["chosen"] != row["rejected"])
split = data.train_test_split(test_size=4, seed=0)
trainer = DPOTrainer(
    model=model, processing_class=tokenizer, train_dataset=split["train"], eval_dataset=split["test"],
    peft_config=LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
    args=DPOConfig(
        "dpo", max_steps=1, per_device_train_batch_size=2, beta=0.1, loss_type="ipo", precompute_ref_log_probs=True, eval_strategy="steps",
        eval_steps=1, logging_steps=1, gradient_checkpointing=True, max_length=96, report_to="none", use_cpu=True, bf16=False,
    ),
)
trainer.train()
metrics = trainer.evaluate()
print(f"margin {metrics['eval_rewards/margins']:.3f} accuracy {metrics['eval_rewards/accuracies']:.2f}")
merged = trainer.model.merge_and_unload()
merged.save_pretrained("dpo/merged")
tokenizer.save_pretrained("dpo/merged")
