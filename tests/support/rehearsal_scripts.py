"""Training scripts with known outcomes: those of tests/data/rehearsal, and variants of them with one fault each."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import tiny
import transformers
import trl_trainers

FOLDER = Path(__file__).parents[1] / "data" / "rehearsal"
HELPER = """
import torch
from datasets import load_dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig


def build(name):
    bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)
    model = AutoModelForCausalLM.from_pretrained(name, quantization_config=bnb, device_map={"": "cpu"})
    return get_peft_model(model, LoraConfig(r=4, target_modules=["gate_proj"])), AutoTokenizer.from_pretrained(name)


def dataset(tokenizer):
    data = load_dataset("json", data_files="data.jsonl", split="train")

    def encode(row):
        out = tokenizer(row["text"], padding="max_length", truncation=True, max_length=32)
        return {**out, "labels": out["input_ids"]}

    return data.map(encode, remove_columns=data.column_names)
"""
CONFIG = """
model: tiny-llama
data: data.jsonl
output_dir: runs/one
lora: {r: 4, lora_alpha: 8, target_modules: [q_proj, k_proj], task_type: CAUSAL_LM}
"""


@dataclass(frozen=True, slots=True)
class Variant:
    """A script of the folder with one change."""

    name: str
    script: str
    old: str = ""
    new: str = ""
    argv: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        text = (FOLDER / f"{self.script}.py").read_text()
        assert self.old in text, self.name
        return text.replace(self.old, self.new) if self.old else text


def _fault(name, script, old, new, *argv):
    return Variant(name, script, old, new, argv)


_SFT, _LM, _LOOP, _LOSS, _CLS, _DPO = (
    *("sft_argparse", "trainer_lm_collator", "torch_loop", "custom_loss", "sequence_classification", "dpo"),
)
CLEAN = tuple(Variant(path.stem, path.stem) for path in sorted(FOLDER.glob("*.py")))
_RANKED = 'get_peft_model(base, LoraConfig(r=2)).load_adapter("out/adapter", "default") or model'
FAULTS = (
    _fault("tokenizer_argument", _SFT, "processing_class=tokenizer", "tokenizer=tokenizer"),
    _fault("max_seq_length", _SFT, "max_length=64", "max_seq_length=64"),
    _fault("load_in_4bit", _SFT, "quantization_config=bnb", "load_in_4bit=True"),
    _fault("wrong_targets", _SFT, '["q_proj", "v_proj"]', '["query", "value"]'),
    _fault("no_adapters", _SFT, "model = get_peft_model", "unused = lambda: get_peft_model"),
    _fault("removed_collator", _SFT, "SFTConfig, SFTTrainer\n", "DataCollatorForCompletionOnlyLM, SFTConfig, SFTTrainer\n"),
    _fault("misspelt_save", _SFT, "trainer.save_model", "trainer.save_modle"),
    _fault("adapter_of_another_rank", "behind_training", 'PeftModel.from_pretrained(base, "out/adapter")', _RANKED),
    _fault("missing_column", _SFT, 'select_columns(["text"])', 'select_columns(["texts"])'),
    _fault("unknown_split", _SFT, 'split="train"', 'split="training"'),
    _fault("int8_helper", _SFT, "prepare_model_for_kbit_training\n", "prepare_model_for_int8_training\n"),
    _fault("no_such_dtype", _SFT, "torch.float32", '"bfloat"'),
    _fault("nothing_to_resume", _SFT, "trainer.train()", "trainer.train(resume_from_checkpoint=True)"),
    _fault("misspelt_option", _SFT, "output_dir=args.output_dir,", "output_dir=args.outputdir,"),
    _fault("wrong_task_type", _SFT, 'task_type="CAUSAL_LM"', 'task_type="CAUSAL"'),
    _fault("text_field_missing", _SFT, 'select_columns(["text"])', 'select_columns(["label"])'),
    _fault("both_precisions", _SFT, "bf16=False", "bf16=True, fp16=True"),
    _fault("no_such_optimizer", _SFT, "bf16=False", 'bf16=False, optim="adamw_8bits"'),
    _fault("evaluation_strategy", _LM, "logging_steps=1", 'logging_steps=1, evaluation_strategy="epoch"'),
    _fault("trainer_tokenizer", _LM, "    model=model,\n    train", "    model=model,\n    tokenizer=tokenizer,\n    train"),
    _fault("not_tokenized", _LM, "data = data.map(tokenize, batched=True, remove_columns=data.column_names)\n", ""),
    _fault("masked_without_mask", _LM, "mlm=False", "mlm=True"),
    _fault(
        "boft",
        _LM,
        'LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", lora_dropout=0.05, bias="none", ',
        '__import__("peft").BOFTConfig(boft_block_size=4, target_modules=["q_proj", "v_proj"], ',
    ),
    _fault(
        "uneven_rows",
        _LM,
        "transformers.DataCollatorForLanguageModeling(tokenizer, mlm=False)",
        "transformers.default_data_collator",
    ),
    _fault("no_evaluation_set", _LM, '    eval_dataset=split["test"],\n', ""),
    _fault("evaluates_without_set", _LM, '    eval_dataset=split["test"],\n', "").__class__(
        "strategy_without_set",
        _LM,
        'eval_dataset=split["test"],\n    args=transformers.TrainingArguments(',
        'args=transformers.TrainingArguments(eval_strategy="steps", ',
    ),
    _fault("best_model_mismatch", _LM, "logging_steps=1", "logging_steps=1, load_best_model_at_end=True"),
    _fault("wrong_split_size", _LM, "test_size=0.25", "test_size=400"),
    _fault("batch_key", _LM, 'batch["text"]', 'batch["content"]'),
    _fault("frozen", _LOOP, "model.train()\ntotal", "model.requires_grad_(False)\nmodel.train()\ntotal"),
    _fault("empty_optimizer", _LOOP, "if p.requires_grad", "if p.requires_grad and p.dim() == 7"),
    _fault("no_labels", _LOOP, '    batch["labels"] = batch["input_ids"].clone()\n', ""),
    _fault("cast", _LOOP, "model.train()\ntotal", "model.half()\nmodel.train()\ntotal"),
    _fault("no_file", _LOOP, "data.jsonl", "data.jsonl").__class__("misspelt_row", _LOOP, '["text"] for', '["txt"] for'),
    _fault("old_loss_signature", _LOSS, ", num_items_in_batch=None", ""),
    _fault("loss_without_key", _LOSS, 'inputs.pop("labels")', 'inputs.pop("label")'),
    _fault("wrong_rename", _CLS, 'rename_column("label", "labels")', 'rename_column("target", "labels")'),
    _fault("wrong_peft_type", _CLS, "TaskType.SEQ_CLS", '"SEQUENCE"'),
    _fault("dpo_tokenizer", _DPO, "processing_class=tokenizer", "tokenizer=tokenizer"),
    _fault("dpo_beta", _DPO, "processing_class=tokenizer,", "processing_class=tokenizer, beta=0.1,"),
    _fault("dpo_without_rejected", _DPO, ', "rejected"])', "])"),
    _fault("unused_arguments", "hf_argument_parser", "", "", "--no_such_option", "1"),
    _fault("adamw_of_transformers", _LM, "import transformers\n", "import transformers\nfrom transformers import AdamW\n"),
    _fault("config_key", "class_based", 'self.cfg["lora"]', 'self.cfg["peft"]'),
    _fault("helper_name", "local_module", "build, dataset\n", "build, data_set\n"),
    _fault("token_beyond", "resized", "model.resize_token_embeddings(len(tokenizer))\n", ""),
    _fault(
        "rank_that_trains",
        _LOOP,
        'get_peft_model(model, LoraConfig(r=4, target_modules=["up_proj", "down_proj"]))',
        'get_peft_model(model.to("cpu"), __import__("peft").AdaLoraConfig(init_r=4, target_r=2, total_step=9, '
        'target_modules=[one.set_compute_type(torch.ones(1, dtype=torch.bfloat16)) or "up_proj" '
        'for one in model.modules() if hasattr(one, "set_compute_type")][:1]))',
    ),
    _fault(
        "adapters_without_data",
        _LOOP,
        "optimizer = ",
        'model.save_pretrained("x")\nmodel = get_peft_model(model.unload(), LoraConfig(), low_cpu_mem_usage=True)\n'
        'model.save_pretrained("x")\noptimizer = ',
    ),
    _fault("new_head_packed", _CLS, '["score"]', '["q_proj"]'),
    _fault("merged_in_8_bits", _CLS, "print(trainer.evaluate())", 'model.merge_and_unload().save_pretrained("merged")'),
    _fault(
        "adapters_of_more_tokens",
        _LOOP,
        'model.save_pretrained("loop-adapter")',
        'model.base_model.model.resize_token_embeddings(264)\nmodel.save_pretrained("loop-adapter")\n'
        'AutoModelForCausalLM.from_pretrained("loop-adapter")',
    ),
    _fault(
        "merged_twice",
        _SFT,
        "tokenizer.save_pretrained",
        "model = model.merge_and_unload()\nmodel.merge_and_unload()\ntokenizer.save_pretrained",
    ),
    _fault(
        "exit",
        _SFT,
        "dataset = load",
        'import sys\n\nif not hasattr(model, "no_such_attribute"):\n    sys.exit("give a better model")\ndataset = load',
    ),
)


def project(folder: Path) -> Path:
    """Fill a folder with a tiny checkpoint, its tokenizer, data, a configuration and a module, and return it."""
    config = transformers.LlamaConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=256,
        max_position_embeddings=128,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=1,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder / "tiny-llama")
    words = trl_trainers.tokenizer(of_bytes=True)
    words.save_pretrained(folder / "tiny-llama")
    lines = [_row(number) for number in range(16)]
    (folder / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "helper.py").write_text(HELPER)
    (folder / "config.yaml").write_text(CONFIG)
    return folder


def _row(number):
    start = f"row {number} of a small set" + " and more" * (number % 4)
    return {
        "text": start,
        "instruction": f"say {number}",
        "output": f"{number} is said",
        "prompt": f"say {number} ",
        "completion": f"it is {number}",
        "chosen": f"it is {number}",
        "rejected": "no",
        "label": number % 2,
    }


def place(variant: Variant, source: Path, folder: Path) -> Path:
    """Copy a project, write a variant into it, and return the script."""
    shutil.copytree(source, folder)
    script = folder / "train.py"
    script.write_text(variant.text)
    return script


assert tiny.VOCAB == 256
