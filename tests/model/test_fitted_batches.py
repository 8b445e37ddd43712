"""Batches that a class's documentation gives, and what a failed forward corrects about them."""

from __future__ import annotations

import pytest
import torch
import transformers

from benchmarks.truth.architectures import build
from kbitlint.model.batch import loss_of, training_batch
from kbitlint.model.inputs.corrections import corrections
from kbitlint.model.inputs.dimensions import Dimensions
from kbitlint.model.inputs.failed_batch import Batch
from kbitlint.model.inputs.failure import Failure
from kbitlint.model.inputs.interface import Argument, interface_of
from kbitlint.model.inputs.plan import DOCUMENTED, Plan
from kbitlint.model.trace.fitting import plan_for

TRANSFORMERS_5 = int(transformers.__version__.split(".")[0]) >= 5


@pytest.mark.skipif(not TRANSFORMERS_5, reason="transformers 4 has other classes in these mappings")
@pytest.mark.parametrize(
    ("task", "model_type", "plan"),
    [
        ("token-classification", "bert", DOCUMENTED),
        ("multiple-choice", "bert", DOCUMENTED),
        ("pre-training", "bert", DOCUMENTED),
        ("image-classification", "convnext", DOCUMENTED),
        ("semantic-segmentation", "segformer", DOCUMENTED),
        ("ctc", "wav2vec2", DOCUMENTED),
        ("audio-classification", "wav2vec2-bert", DOCUMENTED),
        ("video-classification", "videomae", None),
        ("time-series-prediction", "timesfm2_5", None),
        ("audio-frame-classification", "wav2vec2", Plan(shapes={"labels": (2, 49, 2)}, kinds={"labels": "long"})),
        ("image-to-image", "swin2sr", Plan(without=frozenset(["labels"]))),
        (
            "pre-training",
            "visual_bert",
            Plan(
                given=frozenset(["visual_attention_mask", "visual_embeds"]),
                shapes={"labels": (2, 20)},
                kinds={"labels": "long"},
            ),
        ),
        ("question-answering", "lxmert", None),
        ("tdt", "parakeet_tdt", None),
        ("model", "qwen2_5_vl_vision", DOCUMENTED),
        ("model", "kimi_k25_vision", Plan(shapes={"pixel_values": (32, 3, 14, 14)})),
        ("speech-seq2seq", "canary", None),
        ("speech-seq2seq", "speech_to_text", None),
        (
            "speech-seq2seq",
            "speech-encoder-decoder",
            Plan(shapes={"inputs": (2, 16000)}, kinds={"inputs": "float"}),
        ),
    ],
)
def test_a_class_of_any_mapping_gets_a_batch_that_trains_it(task, model_type, plan):
    model = build(task, model_type).train()

    found = plan_for(model, "cpu")
    assert found is not None
    if plan is not None:
        assert found == plan
    loss_of(model(**training_batch(model, "cpu", plan=found))).backward()

    assert any(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.skipif(not TRANSFORMERS_5, reason="transformers 4 documents these arguments in other words")
def test_the_documentation_gives_kinds_and_shapes():
    arguments = interface_of(build("object-detection", "detr", "meta"))
    shapes = {name: (argument.kind, argument.shape, argument.required) for name, argument in arguments.items()}

    assert shapes["pixel_values"] == ("float", ("batch_size", "num_channels", "image_size", "image_size"), True)
    assert shapes["pixel_mask"] == ("long", ("batch_size", "height", "width"), False)
    assert shapes["labels"][0] == "targets"
    assert "past_key_values" not in shapes

    labels = interface_of(build("text-to-spectrogram", "fastspeech2_conformer", "meta"))
    kinds = {name: argument.kind for name, argument in labels.items() if name.endswith("labels")}
    assert kinds == {
        "spectrogram_labels": "float",
        "duration_labels": "long",
        "pitch_labels": "float",
        "energy_labels": "float",
    }


def failure(message, *, kind="ValueError", absent=(), line="", in_loss=False):
    return Failure(kind, message, absent, line, in_loss)


def argument(name, kind, *shape):
    return Argument(name, required=False, kind=kind, shape=shape or None, text="")


ENTRY = {"given": {"batch.labels"}, "kinds": {"batch": "mapping"}}
IMAGE = argument("pixel_values", "float", "batch_size", "num_channels", "image_size", "image_size")
SOUND = argument("input_features", "float", "batch_size", "sequence_length", "feature_dim")
TEXT = argument("input_ids", "long", "batch_size", "sequence_length")
MASK = argument("attention_mask", "long", "batch_size", "sequence_length")
LABELS = argument("labels", "long", "batch_size")


@pytest.mark.parametrize(
    ("raised", "arguments", "shapes", "wanted"),
    [
        (failure("You have to specify input_ids"), (TEXT, IMAGE), {"pixel_values": (2, 3, 32, 32)}, {"given": {"input_ids"}}),
        (
            failure("'NoneType' object has no attribute 'sum'", kind="AttributeError", absent=("attention_mask",)),
            (TEXT, MASK),
            {"input_ids": (2, 16)},
            {"given": {"attention_mask"}},
        ),
        (
            failure("You must specify exactly one of input_ids or inputs_embeds"),
            (TEXT, argument("decoder_input_ids", "long", "batch_size", "sequence_length")),
            {"input_ids": (2, 16)},
            {"given": {"decoder_input_ids"}},
        ),
        (
            failure("it expects the length to be a multiple of `n_window * 2` (100), but got 128."),
            (SOUND,),
            {"input_features": (2, 128, 80)},
            {"shapes": {"input_features": (2, 200, 80)}},
        ),
        (
            failure("Input height (32) doesn't match model (56)."),
            (argument("x", "float"),),
            {"x": (2, 3, 32, 32)},
            {"shapes": {"x": (2, 3, 56, 56)}},
        ),
        (
            failure("Input type (long int) and bias type (c10::BFloat16) should be the same"),
            (TEXT, LABELS),
            {"input_ids": (2, 16), "labels": (2,)},
            {"kinds": {"labels": "float"}},
        ),
        (failure("'labels'", kind="KeyError"), (argument("batch", "features"),), {}, ENTRY),
        (
            failure("only Tensors of floating point and complex dtype can require gradients"),
            (argument("inputs", "float"),),
            {"inputs": (2, 16)},
            {"kinds": {"inputs": "float"}, "shapes": {"inputs": (2, 16000)}},
        ),
        (
            failure("'Tensor' object has no attribute 'rewards'", kind="AttributeError", line="loss(scores, batch.rewards)"),
            (argument("batch", "float"),),
            {"batch": (2, 16, 32)},
            {"given": {"batch.rewards"}, "kinds": {"batch": "record"}},
        ),
        (
            failure("too many indices for tensor of dimension 2", kind="IndexError", line='self.embed(batch["tokens"])'),
            (argument("batch", "float"),),
            {"batch": (2, 16)},
            {"given": {"batch.tokens"}, "kinds": {"batch": "mapping"}},
        ),
        (
            failure("forward() got multiple values for keyword argument 'use_cache'", kind="TypeError"),
            (TEXT,),
            {"input_ids": (2, 16)},
            {"without": {"use_cache"}},
        ),
        (failure("Training is not supported"), (IMAGE, LABELS), {"labels": (2,)}, {"without": {"labels"}}),
        (
            failure("You cannot use both input_ids and pixel_values"),
            (TEXT, IMAGE),
            {"input_ids": (2, 16), "pixel_values": (2, 3, 32, 32)},
            {"without": {"pixel_values"}},
        ),
        (
            failure("Expected input batch_size (98) to match target batch_size (2)."),
            (SOUND, LABELS),
            {"input_features": (2, 128, 80), "labels": (2,)},
            {"shapes": {"labels": (2, 49)}, "kinds": {"labels": "long"}},
        ),
        (
            failure("mat1 and mat2 shapes cannot be multiplied (256x80 and 160x64)"),
            (SOUND,),
            {"input_features": (2, 128, 80)},
            {"shapes": {"input_features": (2, 128, 160)}},
        ),
        (
            failure("a and b must have same reduction dim, but got [256, 80] X [160, 64]."),
            (SOUND,),
            {"input_features": (2, 128, 80)},
            {"shapes": {"input_features": (2, 128, 160)}},
        ),
        (
            failure("Given groups=1, weight of size [8, 80, 3], expected input[2, 128, 80] to have 80 channels, but got 128"),
            (SOUND,),
            {"input_features": (2, 128, 80)},
            {"shapes": {"input_features": (2, 80, 128)}},
        ),
        (
            failure("not enough values to unpack (expected 5, got 4)", line="batch, frames, c, h, w = pixel_values.shape"),
            (IMAGE,),
            {"pixel_values": (2, 3, 32, 32)},
            {"shapes": {"pixel_values": (2, 1, 3, 32, 32)}},
        ),
        (
            failure("Input image size (32*32) doesn't match model (48*48)."),
            (IMAGE,),
            {"pixel_values": (2, 3, 32, 32)},
            {"dimensions": {"image_size": 48}},
        ),
        (
            failure("Kernel size can't be greater than actual input size"),
            (SOUND,),
            {"input_features": (2, 16, 80)},
            {"shapes": {"input_features": (2, 16, 640)}},
        ),
        (failure("something of the loss", in_loss=True), (IMAGE, LABELS), {"labels": (2,)}, {"kinds": {"labels": "float"}}),
    ],
)
def test_the_first_correction_of_a_failure_is_the_relation_that_it_names(raised, arguments, shapes, wanted):
    batch = Batch({one.name: one for one in arguments}, shapes, Dimensions(None, 2, 16))

    assert next(corrections(raised, DOCUMENTED, batch)) == DOCUMENTED.changed(**wanted)


def test_a_failure_that_names_no_relation_has_no_correction():
    batch = Batch({"input_ids": TEXT}, {"input_ids": (2, 16)}, Dimensions(None, 2, 16))

    assert list(corrections(failure("division by zero"), DOCUMENTED, batch)) == []


def test_a_failure_of_dtypes_is_not_one_of_the_batch():
    model = build("masked-lm", "fnet") if TRANSFORMERS_5 else pytest.skip("transformers 4 has no such mapping")

    assert plan_for(model, "cpu") == DOCUMENTED
    with pytest.raises(RuntimeError, match="Unsupported dtype"):
        model(**training_batch(model, "cpu"))


def test_a_mask_of_the_text_is_all_ones_and_a_denoiser_gets_its_conditions():
    class Config:
        joint_attention_dim, in_channels, sample_size = 24, 4, 8

    class Denoiser(torch.nn.Module):
        config = Config()

        def forward(self, hidden_states: torch.Tensor, timestep: torch.Tensor, encoder_hidden_states: torch.Tensor = None):  # noqa: ARG002  # a signature
            """Denoise.

            Args:
                hidden_states (`torch.Tensor` of shape `(batch size, channel, height, width)`):
                    The sample.
            """
            return hidden_states

    made = training_batch(Denoiser(), "cpu")

    assert {name: tuple(value.shape) for name, value in made.items()} == {
        "timestep": (2,),
        "encoder_hidden_states": (2, 16, 24),
        "hidden_states": (2, 4, 8, 8),
    }
