import re

import torch
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from trl import GRPOConfig, GRPOTrainer


def format_reward(completions, **kwargs):
    pattern = r"^<think>.*?</think>\s*<answer>.*?</answer>$"
    return [1.0 if re.match(pattern, completion[0]["content"], re.DOTALL) else 0.0 for completion in completions]


def answer_reward(prompts, completions, output, **kwargs):
    rewards = []
    for prompt, completion, expected in zip(prompts, completions, output, strict=True):
        text = completion[0]["content"]
        found = re.search(r"\d+", text)
        rewards.append(2.0 if found and found.group() == expected.split()[0] else -0.1 * len(text.split()))
    return rewards


def length_reward(completion_ids, **kwargs):
    return [min(len(ids), 8) / 8 for ids in completion_ids]


bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)
model = AutoModelForCausalLM.from_pretrained("tiny-llama", quantization_config=bnb, device_map={"": "cpu"})
tokenizer = AutoTokenizer.from_pretrained("tiny-llama")
data = load_dataset("json", data_files="data.jsonl", split="train").select_columns(["instruction", "output"])
data = data.map(lambda row: {"prompt": [{"role": "system", "content": "Think."}, {"role": "user", "content": row["instruction"]}]})
trainer = GRPOTrainer(
    model=model,
    processing_class=tokenizer,
    reward_funcs=[format_reward, answer_reward, length_reward],
    args=GRPOConfig(
        output_dir="grpo", per_device_train_batch_size=4, num_generations=4, max_completion_length=8, max_steps=1, beta=0.04,
        temperature=0.9, mask_truncated_completions=True, logging_steps=1, report_to="none", use_cpu=True, bf16=False,
    ),
    train_dataset=data,
    peft_config=LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
)
trainer.train()
print([round(entry["reward"], 3) for entry in trainer.state.log_history if "reward" in entry])
trainer.save_model("grpo/final")
