"""Quantized or not by a flag, prepared with the defaults, and wrapped by DDP that looks for unused parameters."""
import os
from dataclasses import dataclass
import draccus, torch
from accelerate import PartialState
from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.optim import AdamW
from transformers import AutoModelForVision2Seq, AutoProcessor, BitsAndBytesConfig  # fault: KB544


@dataclass
class FinetuneConfig:
    vla_path: str = "openvla/openvla-7b"
    use_lora: bool = True
    lora_rank: int = 32
    use_quantization: bool = False


@draccus.wrap()
def finetune(cfg: FinetuneConfig) -> None:
    distributed_state = PartialState()
    device_id = distributed_state.local_process_index
    torch.cuda.set_device(device_id)
    quantization_config = None
    if cfg.use_quantization:
        assert cfg.use_lora
        quantization_config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.bfloat16, bnb_4bit_quant_type="nf4")
    vla = AutoModelForVision2Seq.from_pretrained(cfg.vla_path, torch_dtype=torch.bfloat16, quantization_config=quantization_config, low_cpu_mem_usage=True, trust_remote_code=True)
    if cfg.use_quantization:
        vla = prepare_model_for_kbit_training(vla)  # fault: KB401
    else:
        vla = vla.to(device_id)
    if cfg.use_lora:
        lora_config = LoraConfig(r=cfg.lora_rank, lora_alpha=min(cfg.lora_rank, 16), target_modules="all-linear", init_lora_weights="gaussian")
        vla = get_peft_model(vla, lora_config)
        vla.print_trainable_parameters()
    vla = DDP(vla, device_ids=[device_id], find_unused_parameters=True, gradient_as_bucket_view=True)
    trainable_params = [param for param in vla.parameters() if param.requires_grad]
    optimizer = AdamW(trainable_params, lr=5e-4)
    vla.train()
    optimizer.zero_grad()
    for batch_idx, batch in enumerate(dataloader):
        with torch.autocast("cuda", dtype=torch.bfloat16):
            output = vla(input_ids=batch["input_ids"].to(device_id), labels=batch["labels"])
            loss = output.loss
        normalized_loss = loss / 4
        normalized_loss.backward()
        if (batch_idx + 1) % 4 == 0:
            optimizer.step()
            optimizer.zero_grad()
        if batch_idx % 1000 == 0:
            base_vla = AutoModelForVision2Seq.from_pretrained(cfg.vla_path, torch_dtype=torch.bfloat16, low_cpu_mem_usage=True, trust_remote_code=True)
            merged_vla = PeftModel.from_pretrained(base_vla, "adapter")
            merged_vla = merged_vla.merge_and_unload()
            merged_vla.save_pretrained("run")


finetune()
