from __future__ import annotations

import tiny
import torch
from peft import LoraConfig, get_peft_model

import kbitlint

CODE = "KB307"
MAGNITUDES = {f"model.layers.{i}.self_attn.q_proj.lora_magnitude_vector.default.weight" for i in (0, 1)}


def dora(*, cast, dtype=torch.bfloat16, **arguments):
    """A model with DoRA whose adapters are float32, or stay in the dtype of the model."""
    config = LoraConfig(r=4, target_modules=["q_proj"], use_dora=True, init_lora_weights=False, **arguments)
    return get_peft_model(tiny.load(dtype=dtype), config, autocast_adapter_dtype=cast)


def found(model, **options):
    report = kbitlint.check(model, select=CODE, **options)
    return {v.at.path: (v.severity.value, v.consequence.value) for v in report.violations}


def unchanged(model, rate):
    """The trained parameters that two steps of AdamW leave as they are, bit for bit."""
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    before = {name: parameter.detach().clone() for name, parameter in trained.items()}
    optimizer = torch.optim.AdamW(trained.values(), lr=rate, weight_decay=0.0)
    for _ in range(2):
        assert tiny.step(model).trains
        optimizer.step()
    return {
        name.removeprefix("base_model.model.") for name, parameter in trained.items() if torch.equal(parameter, before[name])
    }


def test_magnitudes_in_bfloat16_never_move_and_are_named():
    model = dora(cast=False)

    assert found(model) == dict.fromkeys(MAGNITUDES, ("warning", "training runs but these parameters never learn"))
    assert unchanged(model, 2e-4) == MAGNITUDES


def test_they_move_in_float32_and_nothing_is_said():
    model = dora(cast=True)

    assert found(model) == {}
    assert unchanged(model, 2e-4) == set()


def test_the_fix_lets_them_move():
    model = dora(cast=False)
    report = kbitlint.fix(model, select=CODE)

    assert report.violations == ()
    assert unchanged(model, 2e-4) == set()


def test_steps_that_are_large_enough_move_them():
    assert unchanged(dora(cast=False), 0.1) == set()


def test_float32_has_bits_enough():
    assert found(dora(cast=False, dtype=torch.float32)) == {}
