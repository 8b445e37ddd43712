"""Everything is an argument: what the run will do is not in the file."""
from dataclasses import dataclass, field

from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, HfArgumentParser, Trainer, TrainingArguments


@dataclass
class ModelArguments:
    model_name_or_path: str = field(default="org/base")
    load_in_4bit: bool = field(default=False)
    lora_r: int = field(default=16)


def main():
    model_args, training_args = HfArgumentParser((ModelArguments, TrainingArguments)).parse_args_into_dataclasses()
    quantization = BitsAndBytesConfig(load_in_4bit=True) if model_args.load_in_4bit else None  # fault: KB502 # note: KB520
    model = AutoModelForCausalLM.from_pretrained(model_args.model_name_or_path, quantization_config=quantization)
    if model_args.load_in_4bit:
        model = prepare_model_for_kbit_training(model, training_args.gradient_checkpointing)
    model = get_peft_model(model, LoraConfig(r=model_args.lora_r))
    Trainer(model=model, args=training_args, train_dataset=data).train()


if __name__ == "__main__":
    main()
