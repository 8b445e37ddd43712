"""Denoisers of diffusers: the traced step is the real one, what fails is named, and a fix trains it."""

from __future__ import annotations

import json
import warnings

import pytest
import torch

pytest.importorskip("diffusers", reason="the models under test are those of diffusers, which kbitlint does not need")

from diffusion import DENOISERS, denoiser, with_adapters

import kbitlint
from kbitlint.context import TrainingContext
from kbitlint.errors import KbitlintError
from kbitlint.model.batch import loss_of, training_batch
from kbitlint.model.layers import checkpointing
from kbitlint.model.layers.norms import is_norm
from kbitlint.model.trace.trace import trace

CONTEXT = TrainingContext(autocast_dtype="float32")


def unprepared(model):
    model.requires_grad_(requires_grad=False)


def prepared_by_peft(model):
    from peft import prepare_model_for_kbit_training

    prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)


def cast_norms(model):
    model.requires_grad_(requires_grad=False)
    for module in model.modules():
        if is_norm(module):
            module.float()


def fixed(model):
    assert kbitlint.fix(model).crashes == ()


def checkpointed(model):
    model.requires_grad_(requires_grad=False)
    model.enable_gradient_checkpointing()


def step(model):
    """Return the trainable parameters that a real step reaches, or the error that it raises."""
    batch = training_batch(model.train(), "cpu")
    try:
        loss_of(model(**batch)).backward()
    except RuntimeError as error:
        return str(error)
    return sorted(name for name, parameter in model.named_parameters() if parameter.grad is not None)


@pytest.mark.parametrize("prepare", [unprepared, prepared_by_peft, cast_norms, fixed], ids=lambda prepare: prepare.__name__)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if place > 1 else ()) for place, name in enumerate(DENOISERS)]
)
def test_the_traced_step_of_a_denoiser_is_the_real_one(name, prepare):
    model = denoiser(name)
    prepare(model)
    model = with_adapters(model)

    traced = trace(model, CONTEXT)  # the real step changes the dtype of biases
    report = kbitlint.check(model, context=CONTEXT)
    errors = [violation for violation in report.violations if violation.severity.value == "error"]
    real = step(model)

    assert report.crashes == ()
    if isinstance(real, str):
        assert prepare in (prepared_by_peft, cast_norms), real
        assert traced.refusals
        assert {violation.code for violation in errors} == {"KB102"}
    else:
        assert sorted(gradient.path for gradient in traced.gradients if gradient.arrives) == real
        assert (traced.refusals, traced.failure, errors) == ((), None, [])


@pytest.mark.parametrize("name", ["flux", "sdxl", "wan"])
def test_checkpointing_of_diffusers_is_seen_and_can_be_enabled(name):
    model = denoiser(name)
    assert checkpointing.supports_checkpointing(model)
    checkpointed(model)
    model = with_adapters(model).train()

    traced = trace(model, CONTEXT)

    assert traced.checkpoint_calls
    assert {call.use_reentrant for call in traced.checkpoint_calls} == {False}
    assert sorted(gradient.path for gradient in traced.gradients if gradient.arrives) == step(model)


def test_reentrant_checkpointing_of_a_denoiser_loses_gradients_and_is_named():
    model = denoiser("sd15")
    model.requires_grad_(requires_grad=False)
    checkpointing.enable(model, use_reentrant=True)
    model = with_adapters(model).train()

    report = kbitlint.check(model, context=CONTEXT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        real = step(model)

    trainable = sorted(name for name, parameter in model.named_parameters() if parameter.requires_grad)
    assert real != trainable
    assert "KB301" in {violation.code for violation in report.violations if violation.severity.value == "error"}


def test_the_memory_of_a_denoiser_has_activations():
    table = kbitlint.memory(with_adapters(denoiser("flux")))

    assert "activations" in str(table)


@pytest.fixture
def pipeline(tmp_path):
    """A folder of a pipeline, of which only the transformer is there."""
    import diffusers

    cls, arguments = DENOISERS["flux"]
    getattr(diffusers, cls)(**arguments).to(torch.bfloat16).save_pretrained(tmp_path / "transformer")
    index = {"_class_name": "FluxPipeline", "transformer": ["diffusers", cls], "vae": ["diffusers", "AutoencoderKL"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    return tmp_path


def test_a_pipeline_folder_is_audited_at_its_transformer(pipeline):
    whole, part = (kbitlint.check(folder, quantize="nf4") for folder in (pipeline, pipeline / "transformer"))

    assert whole.crashes == part.crashes == ()
    assert [violation.code for violation in whole.violations] == [violation.code for violation in part.violations]
    assert "KB501" not in {violation.code for violation in whole.violations}
    assert "KB501" in {violation.code for violation in kbitlint.check(pipeline).violations}


def test_a_pipeline_without_a_denoiser_is_refused_in_one_line(pipeline):
    (pipeline / "transformer" / "config.json").unlink()

    with pytest.raises(KbitlintError, match=r"model_index\.json names a pipeline without transformer or unet"):
        kbitlint.check(pipeline)


def test_a_class_that_diffusers_does_not_have_is_refused_in_one_line(pipeline):
    config = pipeline / "transformer" / "config.json"
    config.write_text(config.read_text().replace("FluxTransformer2DModel", "NoSuchModel"))

    with pytest.raises(KbitlintError, match=r"has no model class 'NoSuchModel', which config\.json names"):
        kbitlint.check(pipeline)
