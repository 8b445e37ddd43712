import torch
from peft import LoraConfig, TaskType, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForSeq2SeqLM, BitsAndBytesConfig, Seq2SeqTrainer, Seq2SeqTrainingArguments

model = AutoModelForSeq2SeqLM.from_pretrained(
    "facebook/bart-large", quantization_config=BitsAndBytesConfig(load_in_8bit=True), device_map="auto"
)
model = prepare_model_for_kbit_training(model, gradient_checkpointing_kwargs={"use_reentrant": False})
model = get_peft_model(model, LoraConfig(r=16, target_modules=["q_proj", "v_proj"], task_type=TaskType.SEQ_2_SEQ_LM))
args = Seq2SeqTrainingArguments("bart", learning_rate=1e-3, predict_with_generate=True)
Seq2SeqTrainer(model=model, args=args, train_dataset=train, eval_dataset=test).train()
