import json

import torch
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from trl import SFTConfig, SFTTrainer


def get_weather(city: str) -> str:
    """
    Return the weather of a city.

    Args:
        city: The name of the city.
    """
    return f"sunny in {city}"


TEMPLATE = """{% if tools %}{{ tools | tojson }}{% endif %}{% for message in messages %}<{{ message.role }}>{% if message.role == 'assistant' %}{% generation %}{{ message.content }}</s>{% endgeneration %}{% else %}{{ message.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"""
tokenizer = AutoTokenizer.from_pretrained("tiny-llama")
tokenizer.chat_template = TEMPLATE
messages = [{"role": "user", "content": "How is Rome?"}]
text = tokenizer.apply_chat_template(messages, tools=[get_weather], add_generation_prompt=True, tokenize=False)
assert "get_weather" in text and text.endswith("<assistant>")
ids = tokenizer.apply_chat_template(messages, tools=[get_weather], add_generation_prompt=True, return_tensors="pt", return_dict=True)
bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)
model = AutoModelForCausalLM.from_pretrained("tiny-llama", quantization_config=bnb, device_map={"": "cpu"})
data = load_dataset("json", data_files="data.jsonl", split="train")
data = data.map(
    lambda row: {"messages": [{"role": "user", "content": row["instruction"]}, {"role": "assistant", "content": row["output"]}]},
    remove_columns=data.column_names,
)
trainer = SFTTrainer(
    model=model, processing_class=tokenizer, train_dataset=data, eval_dataset=data.select(range(2)),
    peft_config=LoraConfig(r=4, target_modules="all-linear"),
    args=SFTConfig("out", max_steps=1, per_device_train_batch_size=2, max_length=120, assistant_only_loss=True, eval_strategy="steps", eval_steps=1, report_to="none", use_cpu=True, bf16=False),
)
trainer.train()
print({key: round(value, 3) for key, value in trainer.evaluate().items()})
ids = ids.to(trainer.model.device)
answer = trainer.model.generate(**ids, max_new_tokens=4)
reply = tokenizer.decode(answer[0][ids["input_ids"].shape[-1]:], skip_special_tokens=True)
try:
    call = json.loads(reply)
except json.JSONDecodeError:
    call = {"text": reply}
print(call)
