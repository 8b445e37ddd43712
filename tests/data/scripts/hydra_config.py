"""Everything comes from hydra, and the file tells nothing."""
import hydra, torch
from omegaconf import DictConfig
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Trainer, TrainingArguments


class WeightedTrainer(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, **kw):
        w = inputs.pop("weight")
        out = model(**inputs)
        loss = (out.loss * w).mean()
        return (loss, out) if return_outputs else loss


@hydra.main(config_path="conf", config_name="train", version_base=None)
def main(cfg: DictConfig):
    bnb = BitsAndBytesConfig(**cfg.bnb) if cfg.get("bnb") else None
    model = AutoModelForCausalLM.from_pretrained(cfg.model, quantization_config=bnb, dtype=getattr(torch, cfg.dtype))
    if cfg.get("bnb"):
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=cfg.train.gradient_checkpointing)
    model = get_peft_model(model, LoraConfig(**cfg.lora))
    WeightedTrainer(model=model, args=TrainingArguments(**cfg.train), train_dataset=ds).train()


if __name__ == "__main__":
    main()
