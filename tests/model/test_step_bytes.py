"""The estimate of a step's bytes beside the measured table, and the gate that the ordinary recipe passes."""

from __future__ import annotations

import json

import pytest
import tiny
import torch
import trace_cases

import kbitlint
from kbitlint.context import TrainingContext
from kbitlint.facts.step_bytes import step_bytes
from kbitlint.fixes.model import fix_model
from kbitlint.model.build.checkpoint_config import Source
from kbitlint.model.build.meta import build
from kbitlint.model.inspect.walk import collect
from kbitlint.model.memory.step_memory import measure
from kbitlint.model.trace.twin import twin_of
from kbitlint.registry import all_rules
from kbitlint.step_plan import StepPlan
from kbitlint.upstream.cards import WORKSPACE
from kbitlint.violation import Safety, Severity

AUTOCAST = TrainingContext(autocast_dtype="bfloat16")
SHAPES = {
    "narrow": {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 6, "vocab_size": 8000},
    "large vocabulary": {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 4, "vocab_size": 64000},
    "tied": {
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_hidden_layers": 4,
        "vocab_size": 64000,
        "tie_word_embeddings": True,
    },
}


def ordinary(tmp_path, shape, *, checkpointing=True):
    """Hugging Face's recipe on a meta model: nf4, PEFT's prepare, LoRA on all linear layers."""
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    heads = {"num_attention_heads": 8, "num_key_value_heads": 4, "torch_dtype": "bfloat16"}
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], **shape, **heads}
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = build(Source(str(tmp_path)), "nf4").model
    arguments = {"use_gradient_checkpointing": checkpointing, "gradient_checkpointing_kwargs": {"use_reentrant": False}}
    model = prepare_model_for_kbit_training(model, **arguments)
    with torch.device("meta"):
        model = get_peft_model(model, LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM"))
    return model.train()


@pytest.mark.parametrize("checkpointing", [True, False])
@pytest.mark.parametrize("shape", [*SHAPES])
def test_the_estimate_is_near_the_measured_table(tmp_path, shape, checkpointing):
    model = ordinary(tmp_path, SHAPES[shape], checkpointing=checkpointing)
    mode = "checkpointed" if checkpointing else "no checkpointing"
    estimate = step_bytes(collect(model), (None, None), "bfloat16")
    wide = measure("", twin_of(model), AUTOCAST, StepPlan(), modes=(mode,)).steps[mode].peak - WORKSPACE
    twin = twin_of(model)
    fix_model(twin, all_rules(), AUTOCAST, Safety.UNSAFE, trace=False)
    narrow = measure("", twin, AUTOCAST, StepPlan(), modes=(mode,)).steps[mode].peak - WORKSPACE
    found = kbitlint.check(model, context=AUTOCAST, select="KB104").violations
    weights = found[0].evidence["extra_bytes_of_all"]
    saved = estimate.stream + estimate.cast + weights

    assert 0.75 < estimate.peak / wide < 1.25
    assert abs(saved / estimate.peak - (wide - narrow) / wide) < 0.08


def test_the_severity_follows_the_cost(tmp_path):
    model = ordinary(tmp_path, SHAPES["large vocabulary"])

    def severities(**further):
        found = kbitlint.check(model, context=TrainingContext(**further), select=["KB103", "KB104"]).violations
        return {(v.code, v.severity) for v in found}

    assert ("KB104", Severity.WARNING) in severities(batch_size=1, seq_len=64)
    assert ("KB104", Severity.INFO) in severities(batch_size=8, seq_len=4096)
    assert severities() == severities(batch_size=1, seq_len=2048)


@pytest.mark.parametrize("family", ["llama", "gpt2 (Conv1D)", "mixtral (MoE)"])
def test_the_ordinary_recipe_passes_the_gate_and_really_trains(family):
    from peft import prepare_model_for_kbit_training

    loaded = tiny.load() if family == "llama" else tiny.load(family)
    arguments = {"use_reentrant": False}
    model = tiny.with_lora(prepare_model_for_kbit_training(loaded, gradient_checkpointing_kwargs=arguments))

    kbitlint.assert_ready(model)

    assert tiny.step(model).trains


def test_a_recipe_that_learns_nothing_does_not_pass():
    model = trace_cases.adapted()
    for parameter in model.parameters():
        parameter.requires_grad = False

    with pytest.raises(AssertionError, match="KB202 nothing-trainable"):
        kbitlint.assert_ready(model)


def test_the_table_shows_what_the_remedy_saves(tmp_path):
    """PEFT's prepare made embeddings and head float32; a safe fix leaves them, so its bar alone shows no gain."""
    table = kbitlint.memory(ordinary(tmp_path, SHAPES["large vocabulary"]), context=AUTOCAST, seq_len=128)
    peaks = {state.name: state.steps["checkpointed"].peak for state in table.states}

    assert list(peaks) == ["as it is", "PEFT's prepare", "kbitlint's fix", "unsafe fixes"]
    assert peaks["unsafe fixes"] < 0.8 * peaks["as it is"] == 0.8 * peaks["kbitlint's fix"]
