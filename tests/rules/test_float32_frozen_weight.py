from __future__ import annotations

import json

import pytest
import tiny
import torch
from peft import prepare_model_for_kbit_training
from script_cases import ADAPTED, IMPORTS, LOADED, PREPARED, findings

import kbitlint
from kbitlint.context import TrainingContext

CODE = "KB104"
EXPERTS = tuple(f"model.layers.{i}.mlp.experts.{name}" for i in (0, 1) for name in ("gate_up_proj", "down_proj"))


def found(model):
    return {v.at.path: v.severity.value for v in kbitlint.check(model, select=CODE).violations}


def nbytes(model):
    return sum(parameter.nbytes for parameter in model.parameters())


def test_what_pefts_prepare_casts_is_flagged_and_norms_are_not():
    model = prepare_model_for_kbit_training(tiny.load())

    assert found(model) == {"lm_head.weight": "info", "model.embed_tokens.weight": "info"}
    (violation, _) = kbitlint.check(model, select=CODE).violations
    assert violation.message == "frozen weight is float32 in a bfloat16 model, as PEFT's prepare leaves it"


def test_the_evidence_is_what_prepare_added_but_for_the_norms():
    model = tiny.load()
    before = nbytes(model)
    norms = sum(p.nbytes for name, p in model.named_parameters() if "norm" in name)

    (violation, _) = kbitlint.check(prepare_model_for_kbit_training(model), select=CODE).violations

    assert violation.evidence["extra_bytes_of_all"] == nbytes(model) - before - norms


@pytest.mark.skipif(not tiny.TRANSFORMERS_5, reason=tiny.LISTED)
def test_experts_that_prepare_doubles_are_flagged():
    model = prepare_model_for_kbit_training(tiny.load("mixtral (MoE)"))

    assert set(EXPERTS) <= set(found(model))


def test_stacked_experts_that_prepare_doubles_are_flagged_in_every_version():
    model = prepare_model_for_kbit_training(tiny.load("gpt_oss (experts stacked by every version)"))

    assert set(EXPERTS) <= set(found(model))


def test_what_the_quantizers_of_transformers_4_keep_in_float32_is_not_flagged():
    """They keep T5's ``wo`` from bfloat16 too; the step is then what it is meant to be, and PEFT made none of it."""
    model = tiny.load("t5 (encoder-decoder)")
    wide = {name for name, p in model.named_parameters() if p.dtype is torch.float32}

    assert found(model) == {}
    assert wide == (
        set() if tiny.TRANSFORMERS_5 else {name for name, _ in model.named_parameters() if name.endswith(".wo.weight")}
    )


def test_the_fix_is_unsafe_gives_the_bytes_back_and_the_model_still_trains():
    t5 = ["t5 (encoder-decoder)"] if tiny.TRANSFORMERS_5 else []
    for family in ("mixtral (MoE)", *t5, "gpt2 (Conv1D)"):
        model = tiny.load(family)
        before = nbytes(model)
        prepare_model_for_kbit_training(model)
        assert kbitlint.fix(model).violations

        kbitlint.fix(model, unsafe=True)

        assert found(model) == {}
        assert nbytes(model) < 1.02 * before, "norms stay float32"
        assert tiny.step(tiny.with_lora(model)).trains, family


@pytest.mark.skipif(tiny.TRANSFORMERS_5, reason="transformers 5 keeps nothing of T5 in float32")
def test_where_a_float32_layer_feeds_the_head_the_fix_is_not_kept():
    """``wo`` widens the stream, which a head in half precision then refuses."""
    model = prepare_model_for_kbit_training(tiny.load("t5 (encoder-decoder)"))
    before = found(model)

    report = kbitlint.fix(model, unsafe=True)

    assert before
    assert report.applied.taken_back
    assert found(model) == before
    assert tiny.step(tiny.with_lora(model)).trains


def test_the_fix_is_taken_back_bit_for_bit():
    model = prepare_model_for_kbit_training(tiny.load())
    before = tiny.state(model, addresses=False)  # the wide tensors are given back, and made again

    kbitlint.fix(model, select=CODE, unsafe=True)
    kbitlint.undo(model)

    assert tiny.state(model, addresses=False) == before


def test_half_precision_models_are_not_flagged():
    assert found(tiny.load()) == {}
    assert found(tiny.prepared()) == {}
    assert found(tiny.with_lora(tiny.prepared(), modules_to_save=["lm_head"])) == {}


def test_a_model_that_is_float32_throughout_is_not_flagged():
    assert found(tiny.with_lora(tiny.load(dtype=torch.float32))) == {}


def test_a_float32_checkpoint_beside_layers_that_compute_in_bfloat16_is_flagged():
    model = tiny.with_lora(tiny.load(dtype=torch.float32, compute=torch.bfloat16))

    violations = kbitlint.check(model, select=CODE).violations

    assert {v.at.path: v.message for v in violations} == {
        "lm_head.weight": "frozen weight is float32 beside bfloat16",
        "model.embed_tokens.weight": "frozen weight is float32 beside bfloat16",
    }


def test_what_is_trained_in_float32_is_not_flagged():
    model = prepare_model_for_kbit_training(tiny.load())
    model.lm_head.weight.requires_grad_(True)

    assert set(found(model)) == {"model.embed_tokens.weight"}


def test_modules_that_the_class_keeps_in_float32_are_not_flagged():
    model = tiny.load("t5 (encoder-decoder)", dtype=torch.float16)
    model.requires_grad_(False)

    assert model.encoder.block[0].layer[1].DenseReluDense.wo.weight.dtype == torch.float32
    assert found(model) == {}


def test_a_share_too_small_to_matter_is_worth_knowing():
    model = tiny.prepared()
    model.model.layers[0].router = torch.nn.Linear(8, 8, bias=False).requires_grad_(False)

    assert found(model) == {"model.layers.0.router.weight": "info"}


def test_an_unquantized_model_that_prepare_doubled_is_flagged():
    model = prepare_model_for_kbit_training(tiny.load(kind="none"))

    assert len(found(model)) == 16


@pytest.mark.parametrize(
    ("checkpoint", "arguments", "severity"),
    [
        ("meta-llama/Meta-Llama-3-8B", "'out'", "warning"),
        ("meta-llama/Meta-Llama-3-8B", "'out', per_device_train_batch_size=4, max_length=2048", "info"),
        ("meta-llama/Meta-Llama-3-8B", "'out', per_device_train_batch_size=4, max_length=256", "warning"),
        ("meta-llama/Meta-Llama-3-70B", "'out'", "info"),
        ("Qwen/Qwen2.5-0.5B", "'out'", "info"),
        ("Qwen/Qwen2.5-0.5B", "'out', max_length=256", "warning"),
    ],
)
def test_in_a_script_the_severity_follows_the_cost_too(checkpoint, arguments, severity):
    """The shares are those of ``step_bytes`` on models of these shapes, within 12 % from 0.5 to 32 billion parameters."""
    trained = f"SFTTrainer(model=model, args=SFTConfig({arguments}), train_dataset=data).train()\n"
    script = LOADED.replace("org/base", checkpoint) + PREPARED + ADAPTED + trained

    assert [found for found, *_ in findings(CODE, script)] == [severity]
    (found,) = findings(CODE, script, context=TrainingContext(batch_size=64, seq_len=4096))
    assert found[0] == "info", "the user's batch counts before the script's"


def test_a_step_of_a_script_is_as_large_as_that_of_the_model(tmp_path):
    """The peak from a name beside the peak from the modules, tied head and all."""
    from kbitlint.facts.step_bytes import step_bytes
    from kbitlint.model.build.checkpoint_config import Source
    from kbitlint.model.build.meta import build
    from kbitlint.model.inspect.walk import collect
    from kbitlint.upstream.families import facts_of
    from kbitlint.upstream.geometries import config_of

    name = "Qwen/Qwen2.5-0.5B"
    config, _ = config_of(facts_of(name))
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = prepare_model_for_kbit_training(build(Source(str(tmp_path)), "nf4").model)
    facts = collect(model)
    extra = sum(p.nbytes // 2 for p in facts.parameters if p.dtype == "float32" and len(p.shape) > 1)
    report = kbitlint.check(str(_script(tmp_path, name)), select=CODE)

    (violation,) = report.violations
    assert violation.evidence["extra_bytes"] == pytest.approx(extra, rel=0.01)
    assert violation.evidence["share_of_peak"] == pytest.approx(extra / step_bytes(facts, (None, None), None).peak, rel=0.1)


def _script(folder, checkpoint):
    file = folder / "train.py"
    file.write_text(IMPORTS + LOADED.replace("org/base", checkpoint) + PREPARED + ADAPTED)
    return file
