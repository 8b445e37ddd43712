from threading import Thread

import torch
from peft import PeftModel
from transformers import GenerationConfig, TextIteratorStreamer, TextStreamer, Trainer, TrainingArguments, pipeline

from helper import build, dataset

model, tokenizer = build("tiny-llama")
trainer = Trainer(model, TrainingArguments("out", max_steps=1, per_device_train_batch_size=2, report_to="none", use_cpu=True), train_dataset=dataset(tokenizer))
trainer.train()
model.eval()
model.config.use_cache = True
inputs = tokenizer("say 3", return_tensors="pt").to(model.device)
with torch.no_grad():
    out = model.generate(**inputs, max_new_tokens=8, do_sample=True, temperature=0.7, num_return_sequences=3, pad_token_id=tokenizer.pad_token_id)
assert out.shape[0] == 3
answers = tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1]:], skip_special_tokens=True)
for number, answer in enumerate(answers):
    print(number, answer.strip())
beams = model.generate(**inputs, max_new_tokens=6, num_beams=2, return_dict_in_generate=True, output_scores=True)
print(tokenizer.decode(beams.sequences[0]), len(beams.scores), beams.sequences_scores[0].item())
sampled = model.generate(**inputs, generation_config=GenerationConfig(max_new_tokens=5, min_new_tokens=5), return_dict_in_generate=True, output_logits=True, output_hidden_states=True)
assert sampled.sequences.shape[1] == inputs["input_ids"].shape[1] + 5
probabilities = torch.softmax(sampled.logits[0].float(), dim=-1)
print(probabilities.max().item(), sampled.hidden_states[-1][-1].shape)
model.generate(**inputs, max_new_tokens=4, streamer=TextStreamer(tokenizer, skip_prompt=True))
streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, timeout=60)
thread = Thread(target=model.generate, kwargs={**inputs, "max_new_tokens": 4, "streamer": streamer})
thread.start()
print("".join(streamer))
thread.join()
texts = ["one", "a longer one"]
tokenizer.padding_side = "left"
batch = tokenizer(texts, return_tensors="pt", padding=True)
outputs = model.generate(batch["input_ids"].to(model.device), attention_mask=batch["attention_mask"].to(model.device), max_length=40)
for text, output in zip(texts, outputs, strict=True):
    print(text, "->", tokenizer.decode(output, skip_special_tokens=True)[len(text):])
pipe = pipeline("text-generation", model=model, tokenizer=tokenizer)
print(pipe("say 3", max_new_tokens=4)[0]["generated_text"])
