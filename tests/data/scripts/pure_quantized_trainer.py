import torch
from transformers import AutoModelForSequenceClassification, BitsAndBytesConfig, Trainer, TrainingArguments

bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
model = AutoModelForSequenceClassification.from_pretrained("roberta-large", quantization_config=bnb, num_labels=2)
trainer = Trainer(  # fault: KB220 # note: KB402
    model=model,
    args=TrainingArguments("cls", bf16=True, eval_strategy="epoch"),
    train_dataset=train,
    eval_dataset=test,
)
trainer.train()
