"""Scripts for the tests of rules, and functions that return the findings and the fixes of a rule."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

from kbitlint.audit.scripts import run
from kbitlint.context import TrainingContext
from kbitlint.files.local_configs import checkpoint_config
from kbitlint.fixes.files import mend
from kbitlint.registry import all_rules, find
from kbitlint.source import documents
from kbitlint.upstream.versions import NEWEST
from kbitlint.violation import Safety, Surface

SCRIPT = """from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype="bfloat16")
model = AutoModelForCausalLM.from_pretrained("m", quantization_config=config)
model = prepare_model_for_kbit_training(model)
model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM"))
"""

OLD = {**NEWEST, "transformers": "4.57.1", "peft": "0.9.0", "trl": "0.8.0"}

IMPORTS = """\
import os
import torch
from torch.nn.parallel import DistributedDataParallel as DDP
from transformers import (AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, Mxfp4Config, Trainer,
                          TrainingArguments)
from peft import LoraConfig, PeftConfig, PeftModel, PrefixTuningConfig, get_peft_model, prepare_model_for_kbit_training
from trl import SFTConfig, SFTTrainer
"""
LOADED = """\
bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
model = AutoModelForCausalLM.from_pretrained("org/base", quantization_config=bnb, dtype=torch.bfloat16)
"""
PREPARED = """\
model = prepare_model_for_kbit_training(model, gradient_checkpointing_kwargs={"use_reentrant": False})
"""
ADAPTED = "model = get_peft_model(model, LoraConfig(r=8, target_modules='all-linear'))\n"
TRAINED = "Trainer(model=model, args=TrainingArguments('out', bf16=True), train_dataset=data).train()\n"
#: Trainer tells DDP to look for unused parameters of a PeftModel
RANKED = TRAINED.replace("bf16", "ddp_backend='nccl', bf16")
LOOP = """\
optimizer = torch.optim.AdamW(model.parameters())
for batch in loader:
    loss = model(**batch).loss
    loss.backward()
    optimizer.step()
"""
RECIPE = LOADED + PREPARED + ADAPTED + TRAINED


def document(text, suffix=".py", versions=NEWEST):
    """Return the document of a text, or None if it is not worth parsing."""
    return documents.parse(Path(f"train{suffix}"), text.encode(), f"train{suffix}", versions)


def findings(code, body, *, suffix=".py", versions=NEWEST, imports=IMPORTS, context=None):
    """Return (severity, text of the line, message) of each violation of a rule in a script."""
    text = imports + textwrap.dedent(body) if suffix == ".py" else textwrap.dedent(body)
    read = document(text, suffix, versions)
    if read is None:
        return []
    outcome, _ = run((find(code),), read.facts, context or TrainingContext())
    assert not outcome.crashes, outcome.crashes
    assert {v.surface for v in outcome.violations} <= {Surface.SOURCE}, "check_source passes surface=Surface.SOURCE"
    lines = text.split("\n")
    return [(v.severity.value, lines[v.at.line - 1].strip(), v.message) for v in outcome.violations]


def beside(code, body, folder, config, name="base"):
    """Return the findings of a rule on a script beside a checkpoint's config.json."""
    (folder / name).mkdir(exist_ok=True)
    (folder / name / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
    path = folder / "train.py"
    path.write_text(IMPORTS + body.replace("org/base", name))
    checkpoint_config.cache_clear()
    found = run((find(code),), documents.read(path, path.name, NEWEST).facts, TrainingContext())[0].violations
    lines = path.read_text().split("\n")
    return [(v.severity.value, lines[v.at.line - 1].strip(), v.message) for v in found]


def flagged_lines(code, body, **how):
    """Return (severity, text of the line) of each violation of a rule in a script."""
    return [(severity, line) for severity, line, _ in findings(code, body, **how)]


def fixed_text(code, body, tmp_path, *, suffix=".py", imports=IMPORTS, unsafe=True):
    """Return the body after the fixes of a rule.

    Assert that a second fix changes nothing, that no fixable violation of the rule is left, and that no violation has a
    new code.
    """
    text = imports + textwrap.dedent(body) if suffix == ".py" else textwrap.dedent(body)
    path = tmp_path / f"train{suffix}"
    path.write_text(text)
    rules, everything = (find(code),), all_rules()
    wanted = Safety.UNSAFE if unsafe else Safety.SAFE
    before = {v.code for v in run(everything, documents.read(path).facts, TrainingContext())[0].violations}
    mended = mend(path, path.name, rules, TrainingContext(), wanted)
    path.write_text(mended.after)
    again = mend(path, path.name, rules, TrainingContext(), wanted)
    left = run(everything, documents.read(path).facts, TrainingContext())[0].violations

    assert again.after == mended.after
    assert {v.code for v in left} <= before
    assert not [v for v in left if v.code == code and v.fix and v.fix.safety >= wanted]
    return mended.after.removeprefix(imports) if suffix == ".py" else mended.after
