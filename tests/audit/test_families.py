"""The main job on architectures of different families, in 4 and in 8 bits."""

from __future__ import annotations

import pytest
import tiny

import kbitlint

UNPREPARED = {"KB101", "KB201", "KB402"}
EXPERTS = [f"model.layers.{i}.mlp.experts.{name}" for i in (0, 1) for name in ("down_proj", "gate_up_proj")]
TOWER = "model.vision_tower"


def as_loaded(family, kind):
    """What no fix changes: it was decided when the model was loaded."""
    found = {("KB106", "info", "")} if kind == "int8" else set()
    if "MoE" in family and tiny.TRANSFORMERS_5:  # transformers 4 keeps experts in lists
        found |= {("KB504", "warning", path) for path in EXPERTS}
    if "llava" in family:
        found.add(("KB507", "info", TOWER))
    if (
        "t5" in family and kind == "nf4" and not tiny.TRANSFORMERS_5
    ):  # transformers 4 keeps wo in float32, which adds to the stream
        found.add(("KB103", "warning", "encoder.block.0"))
    return found


def on_adapters(family):
    """What is worth knowing once LoRA sits on every packed layer."""
    if "llava" in family:
        return {("KB203", "info", "model.multi_modal_projector"), ("KB203", "info", TOWER), ("KB605", "info", TOWER)}
    return {("KB602", "info", path) for path in EXPERTS} if "MoE" in family and tiny.TRANSFORMERS_5 else set()


def said(violations):
    return {(v.code, v.severity.value, v.at.path) for v in violations}


#: what kbitlint does of 8 bits differs by the kind of layer, not by the family
IN_8_BITS = ("llama", "gpt2 (Conv1D)", "mixtral (MoE)", "llava (vision-language)")


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        pytest.param(family, kind, marks=pytest.mark.slow if kind == "int8" and family not in IN_8_BITS else ())
        for family in tiny.FAMILIES
        for kind in ("nf4", "int8")
    ],
)
def test_every_family_is_audited_fixed_and_trains_as_far_as_it_did_before(family, kind):
    reached = tiny.step(tiny.with_lora(tiny.load(family, kind))).arrived
    model = tiny.load(family, kind)

    found = kbitlint.check(model)
    fixed = kbitlint.fix(model, probe=True)
    adapted = tiny.with_lora(model)
    taken = tiny.step(adapted)

    assert {v.code for v in found.violations} == UNPREPARED | {code for code, _, _ in as_loaded(family, kind)}
    assert said(fixed.violations) == as_loaded(family, kind)
    assert (fixed.crashes, fixed.applied.probe.failure) == ((), None)
    assert (taken.error, taken.arrived) == (None, reached)
    assert said(kbitlint.check(adapted).violations) == as_loaded(family, kind) | on_adapters(family)


@pytest.mark.parametrize("family", [name for name in tiny.FAMILIES if "encoder-decoder" not in name])
def test_reentrant_layers_without_a_hook_are_an_error_and_learn_nothing(family):
    model = tiny.with_lora(tiny.prepared(family))
    model.train()
    tiny.bind_reentrant(model, use_reentrant=True)
    inside = tuple(violation.at.path for violation in kbitlint.check(model).violations if violation.code == "KB301")
    taken = tiny.step(model)

    assert inside
    reached = [name for name in taken.arrived if name.removeprefix("base_model.model.").startswith(inside)]
    assert (taken.error or "element 0", reached) == (taken.error or "element 0", [])

    kbitlint.fix(model)

    assert tiny.step(model).error is None


@pytest.mark.parametrize("family", ["llama", "gpt2 (Conv1D)", "t5 (encoder-decoder)", "mixtral (MoE)", "bamba (SSM hybrid)"])
def test_undo_restores_every_bit(family):
    model = tiny.load(family)
    before = tiny.state(model)

    report = kbitlint.fix(model)

    assert report.applied.edits
    assert kbitlint.undo(model) == 1
    assert tiny.state(model) == before


@pytest.mark.parametrize("family", ["llama", "gemma3 (1 + weight)", "gpt_neox (fused QKV, LayerNorm)", "bamba (SSM hybrid)"])
def test_safe_fixes_move_the_logits_by_rounding_only(family):
    import torch

    from kbitlint.model.batch import training_batch

    model = tiny.load(family)
    torch.manual_seed(0)
    batch = training_batch(model, "cpu")
    model.enable_input_require_grads()  # bitsandbytes multiplies with another kernel where its input requires none
    before = model.eval()(**batch).logits

    kbitlint.fix(model)
    after = model.eval()(**batch).logits

    assert after.dtype == before.dtype
    assert (after - before).abs().max() <= 2**-6 * before.abs().max()  # two roundings of bfloat16's 8 bits


def test_the_residual_stream_keeps_its_dtype():
    import torch

    model = tiny.load()
    seen = []
    kbitlint.fix(model)
    for layer in model.model.layers:
        layer.register_forward_hook(
            lambda module, args, output: seen.append((output[0] if isinstance(output, tuple) else output).dtype)
        )

    assert tiny.step(tiny.with_lora(model)).trains
    assert set(seen) == {torch.bfloat16}
    assert model.model.norm.weight.dtype == torch.float32
