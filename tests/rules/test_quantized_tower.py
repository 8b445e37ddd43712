from __future__ import annotations

import tiny

import kbitlint

CODE = "KB507"


def found(model):
    return [(v.at.path, v.message, v.severity.value, v.evidence) for v in kbitlint.check(model, select=CODE).violations]


def test_a_packed_vision_tower_is_worth_knowing():
    model = tiny.load("llava (vision-language)")

    assert found(model) == [
        (
            "model.vision_tower",
            "tower that reads pixel_values is quantized",
            "info",
            {"class": "CLIPVisionModel", "layers": 12, "kind": "nf4"},
        )
    ]
    assert tiny.step(tiny.with_lora(model, target_modules=r".*language_model.*q_proj")).trains


def test_a_tower_that_was_left_out_is_not_flagged():
    skipped = ["model.vision_tower", "model.multi_modal_projector", "lm_head"]

    assert found(tiny.load("llava (vision-language)", llm_int8_skip_modules=skipped)) == []


def test_models_without_a_tower_are_not_flagged_and_unquantized_ones_are_skipped():
    assert found(tiny.load()) == []
    assert kbitlint.check(tiny.load(kind="none"), select=CODE).skips[0].reason == "no layer is quantized"


def test_an_encoder_that_reads_sound_is_half_of_the_model_and_no_tower():
    assert found(tiny.load("whisper (reads sound)")) == []
