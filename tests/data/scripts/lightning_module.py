"""A LightningModule; Lightning calls backward(), and since 2.2 it leaves the mode that loading sets."""
import lightning as L
import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig


class LitQLoRA(L.LightningModule):
    def __init__(self, name="tiiuae/falcon-7b", lr=2e-4):
        super().__init__()
        self.save_hyperparameters()
        bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
        base = AutoModelForCausalLM.from_pretrained(name, quantization_config=bnb)
        base = prepare_model_for_kbit_training(base, gradient_checkpointing_kwargs={"use_reentrant": False})
        self.model = get_peft_model(base, LoraConfig(r=8, target_modules=["query_key_value"]))

    def training_step(self, batch, idx):
        out = self.model(**batch)
        self.log("loss", out.loss)
        return out.loss  # fault: KB403

    def validation_step(self, batch, idx):
        self.log("val_loss", self.model(**batch).loss)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.model.parameters(), lr=self.hparams.lr)


L.Trainer(max_epochs=1, precision="bf16-mixed").fit(LitQLoRA(), loader)
