"""Loops of a script that cast the norms and leave the head: which parts they reach, and what that gives the head."""

from __future__ import annotations

import importlib

import pytest
import torch
import transformers
from script_cases import ADAPTED, LOADED, LOOP, PREPARED, findings

from kbitlint.upstream import norm_dtypes

LLAMA = LOADED.replace("org/base", "meta-llama/Llama-3.2-1B")
EACH = "for name, p in model.named_parameters():\n    p.requires_grad = False\n"
MODULES = "for name, module in model.named_modules():\n"
ONE = EACH + "    if p.ndim == 1:\n        p.data = p.data.to(torch.float32)\n"
TRAINER = "Trainer(model=model, args=TrainingArguments('out'{}), train_dataset=data).train()\n"
TOLD = "the float32 {} meet what is in half precision, and no autocast region surrounds the step"


def said(cast, loaded=LLAMA, after="", loop=LOOP):
    return [message for _, _, message in findings("KB102", loaded + cast + ADAPTED + after + loop)]


@pytest.mark.parametrize(
    "cast",
    [
        ONE,
        ONE.replace("p.ndim == 1", "len(p.shape) == 1"),
        ONE.replace("p.ndim == 1", "p.dim() < 2 and 'norm' in name"),
        ONE.replace("p.ndim == 1", "not p.ndim > 1"),
        ONE.replace("to(torch.float32)", "float()").replace("p.ndim == 1", "'norm' in name"),
        EACH.replace(
            "    p.requires_grad = False\n",
            "    if 'norm' not in name:\n        continue_ = 1\n    else:\n        p.data = p.data.float()\n",
        ),
        MODULES + "    if 'norm' in name:\n        module.float()\n",
        MODULES + "    if isinstance(module, LlamaRMSNorm):\n        module.to(torch.float32)\n",
        "model.requires_grad_(False)\n" + MODULES + "    if 'norm' in name:\n        module = module.to(torch.float32)\n",
    ],
)
def test_norms_alone_in_float32_are_an_error_without_autocast(cast):
    assert said(cast) == said(cast, loop=TRAINER.format("")) == [TOLD.format("norms")]


@pytest.mark.parametrize(
    ("cast", "after"),
    [
        (ONE.replace("p.ndim == 1", "'embed' in name"), ""),
        (ONE.replace("p.ndim == 1", "p.ndim == 2"), ""),
        (ONE.replace("p.ndim == 1", "p.ndim == 1 or 'lm_head' in name"), ""),
        (ONE.replace("p.ndim == 1", "p.dtype == torch.bfloat16"), ""),
        (ONE.replace("    if p.ndim == 1:\n    ", ""), ""),
        (ONE + "model.lm_head.float()\n", ""),
        (ONE + "model.lm_head = CastOutputToFloat(model.lm_head)\n", ""),
        (ONE + "model.get_output_embeddings().to(torch.float32)\n", ""),
        (ONE + "model.lm_head.weight.data = model.lm_head.weight.data.float()\n", ""),
        (ONE + PREPARED, ""),
        (ONE, "model.float()\n"),
        (MODULES + "    if isinstance(module, torch.nn.Linear):\n        module.float()\n", ""),
    ],
)
def test_what_casts_more_or_less_is_no_error(cast, after):
    assert said(cast, after=after) == []


@pytest.mark.parametrize("name", ["google/gemma-2b", "allenai/OLMo-2-0425-1B", "facebook/opt-125m", "org/base"])
def test_norms_that_give_back_what_came_in_or_are_not_known_are_no_error(name):
    assert said(ONE, LOADED.replace("org/base", name)) == []


@pytest.mark.parametrize(
    "loaded",
    [
        LLAMA.replace("load_in_4bit=True", "load_in_4bit=True, llm_int8_skip_modules=['score']"),
        LLAMA.replace("dtype=torch.bfloat16)\n", "dtype=torch.float32)\n").replace("=torch.bfloat16)", "=torch.float32)"),
    ],
)
def test_a_packed_head_and_one_in_float32_take_float32(loaded):
    assert said(ONE, loaded) == []


@pytest.mark.parametrize(
    "loop",
    [
        TRAINER.format(", bf16=True"),
        TRAINER.format(", deepspeed='zero2.json'"),
        "with torch.autocast('cuda'):\n    pass\n" + LOOP,
    ],
)
def test_autocast_takes_any_dtype(loop):
    assert said(ONE, loop=loop) == []


@pytest.mark.parametrize("kind", sorted(norm_dtypes._PROMOTING))
def test_the_norms_of_each_listed_type_give_float32_to_their_head(kind):
    config = transformers.CONFIG_MAPPING[kind]
    module = importlib.import_module(config.__module__.replace("configuration", "modeling"))
    norms = [cls for name, cls in vars(module).items() if name.endswith(("RMSNorm", "T5LayerNorm")) and "Gated" not in name]
    given = {cls(8).float()(torch.zeros(1, 8, dtype=torch.bfloat16)).dtype for cls in norms}

    assert given == {torch.float32}


BIAS = [TOLD.format("bias of the head")]


@pytest.mark.parametrize("kind", norm_dtypes._BIASED)
def test_a_loop_over_all_vectors_reaches_the_bias_of_a_head(kind):
    names = {"phi": "microsoft/phi-2", "gptj": "EleutherAI/gpt-j-6b", "codegen": "Salesforce/codegen-350M-mono"}
    loaded = LOADED.replace("org/base", names[kind])
    config = transformers.CONFIG_MAPPING[kind]()
    with torch.device("meta"):
        head = transformers.AutoModelForCausalLM.from_config(config).lm_head

    assert head.bias is not None
    assert said(ONE, loaded) == BIAS
    assert said(ONE.replace("p.ndim == 1", "'norm' in name"), loaded) == []
    assert said(ONE, loaded.replace("ForCausalLM", "ForSequenceClassification")) == []


def test_the_dtype_of_the_checkpoint_counts_where_the_script_asks_for_it():
    auto = LLAMA.replace("dtype=torch.bfloat16)\n", 'dtype="auto")\n')
    auto = auto.replace("compute_dtype=auto", "compute_dtype=torch.bfloat16")

    assert said(ONE, auto) == [TOLD.format("norms")]
    assert said(ONE, auto.replace("meta-llama/Llama-3.2-1B", "google-t5/t5-small")) == []
