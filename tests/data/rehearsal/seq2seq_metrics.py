import numpy as np
import torch
from datasets import load_dataset
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForSeq2SeqLM, AutoTokenizer, BitsAndBytesConfig, DataCollatorForSeq2Seq, Seq2SeqTrainer, Seq2SeqTrainingArguments, T5Config,
    T5ForConditionalGeneration,
)

tokenizer = AutoTokenizer.from_pretrained("tiny-llama")
config = T5Config(vocab_size=256, d_model=64, d_kv=16, d_ff=64, num_layers=1, num_heads=4, decoder_start_token_id=0, pad_token_id=0, eos_token_id=1)
T5ForConditionalGeneration(config).save_pretrained("tiny-t5")
bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)
model = AutoModelForSeq2SeqLM.from_pretrained("tiny-t5", quantization_config=bnb, device_map={"": "cpu"})
model = get_peft_model(model, LoraConfig(r=4, target_modules=["q", "v"], task_type="SEQ_2_SEQ_LM"))
data = load_dataset("json", data_files="data.jsonl", split="train")


def encode(row):
    return {**tokenizer(row["instruction"], truncation=True, max_length=32), "labels": tokenizer(text_target=row["output"])["input_ids"]}


data = data.map(encode, remove_columns=data.column_names)


def compute_metrics(prediction):
    ids, labels = prediction
    ids = np.where(ids != -100, ids, tokenizer.pad_token_id)
    labels = np.where(labels != -100, labels, tokenizer.pad_token_id)
    texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
    wanted = tokenizer.batch_decode(labels, skip_special_tokens=True)
    lengths = [np.count_nonzero(row != tokenizer.pad_token_id) for row in ids]
    return {"exact": np.mean([text.strip() == want.strip() for text, want in zip(texts, wanted)]), "gen_len": np.mean(lengths)}


trainer = Seq2SeqTrainer(
    model=model, train_dataset=data, eval_dataset=data.select(range(4)), data_collator=DataCollatorForSeq2Seq(tokenizer, model=model),
    processing_class=tokenizer, compute_metrics=compute_metrics,
    args=Seq2SeqTrainingArguments("out", max_steps=1, per_device_train_batch_size=2, predict_with_generate=True, generation_max_length=8, report_to="none", use_cpu=True),
)
trainer.train()
metrics = trainer.evaluate(max_length=8)
print(f"{metrics['eval_exact']:.2f} {metrics['eval_gen_len']:.1f}")
out = trainer.predict(data.select(range(2)))
print(tokenizer.batch_decode(np.where(out.predictions != -100, out.predictions, 0), skip_special_tokens=True), out.metrics["test_loss"])
ids = tokenizer("translate this", return_tensors="pt").input_ids
made = model.generate(input_ids=ids, max_new_tokens=4)
assert made[0, 0].item() == 0
print(tokenizer.decode(made[0], skip_special_tokens=True))
