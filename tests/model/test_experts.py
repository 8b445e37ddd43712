"""Fused experts packed in 4 bits: what they cost, that training goes on, that every bit comes back, and what cannot be."""

from __future__ import annotations

import gc
import shutil

import pytest
import tiny
import torch
import transformers
from peft import LoraConfig, get_peft_model

import kbitlint
from kbitlint.errors import EditError
from kbitlint.model.edits import apply
from kbitlint.model.edits.checkpoint_tensors import StoredParameters
from kbitlint.model.edits.journal import Journal
from kbitlint.model.inspect.walk import collect
from kbitlint.model.layers.experts import packed_kind, state_bytes
from kbitlint.violation import Edit

MIXTRAL = "mixtral (MoE)"
EXPERTS = [f"model.layers.{i}.mlp.experts.{name}" for i in (0, 1) for name in ("down_proj", "gate_up_proj")]

pytestmark = pytest.mark.skipif(not tiny.TRANSFORMERS_5, reason="transformers 5 stacks experts in parameters")


def packed(**arguments):
    model = tiny.load(MIXTRAL, **arguments)
    kbitlint.fix(model, unsafe=True)
    return model


def nbytes(model):
    return sum(parameter.nbytes for parameter in model.parameters())


def everything(model):
    """What undo must bring back: the state without addresses of the experts, classes, names in their order, saved keys."""
    modules, tensors, config = tiny.state(model)
    moved = {name: (dtype, *rest) for name, (dtype, _, *rest) in tensors.items() if name in EXPERTS}
    classes = [(name, type(module).__name__, list(module._parameters)) for name, module in model.named_modules()]
    return modules, list(tensors), {**tensors, **moved}, config, classes, list(model.state_dict())


@pytest.mark.parametrize("double", [False, True])
def test_experts_are_packed_like_the_other_layers_and_the_audit_says_how_much_is(double):
    model = tiny.load(MIXTRAL, bnb_4bit_use_double_quant=double)
    before = nbytes(model)
    stacks = {p.path: p.nbytes for p in collect(model).parameters if p.bank}

    report = kbitlint.fix(model, unsafe=True)

    done = [edit for edit in report.applied.edits if edit.kind == "pack-experts"]
    assert [(edit.path, dict(edit.arguments)) for edit in done] == [
        (path, {"quant_type": "nf4", "compress_statistics": double}) for path in EXPERTS
    ]
    facts = collect(model)
    after = {p.path: (p.nbytes, p.dtype, p.shape, p.packed) for p in facts.parameters if p.bank}
    assert after == {path: (size // 4, "uint8", tuple(tiny_shape(path)), True) for path, size in stacks.items()}
    assert nbytes(model) < 0.5 * before
    held = sum(state_bytes(module) for module in model.modules() if packed_kind(module))
    fixed = 4 * (16 * 4 + (256 * 4 + 4 if double else 0))  # the code book of each bank, and that of its statistics
    assert -sum(edit.adds_bytes for edit in done) == sum(stacks.values()) * 3 // 4 - (held - fixed)
    assert facts.quantized_share > 0.85
    assert facts.summary().endswith("bitsandbytes nf4 on 8 layers, nf4 on 4 fused experts, 87% of the parameters")
    assert report.violations == ()


def tiny_shape(path):
    return tiny.load(MIXTRAL, "none").get_parameter(path).shape


def test_only_an_unsafe_fix_packs():
    model = tiny.load(MIXTRAL)

    report = kbitlint.fix(model)

    assert {edit.kind for edit in report.applied.edits}.isdisjoint({"pack-experts"})
    assert [(v.code, v.at.path) for v in report.violations] == [("KB504", path) for path in EXPERTS]


def test_training_goes_on_with_adapters_on_attention():
    plain = tiny.load(MIXTRAL)
    kbitlint.fix(plain)

    expected, found = tiny.step(tiny.with_lora(plain)), tiny.step(tiny.with_lora(packed()))

    assert found.trains
    assert found.arrived == expected.arrived
    assert abs(found.loss - expected.loss) < 0.02 * expected.loss


@pytest.mark.parametrize("reentrant", [False, True])
def test_both_kinds_of_checkpointing_give_the_same_gradients(reentrant):
    def gradients(checkpointed):
        model = packed()
        model.gradient_checkpointing_disable()
        if checkpointed:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
            model.enable_input_require_grads()
        model = tiny.with_lora(model)
        assert tiny.step(model).trains
        return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}

    plain, checkpointed = gradients(checkpointed=False), gradients(checkpointed=True)

    assert plain.keys() == checkpointed.keys()
    assert all(torch.equal(plain[name], checkpointed[name]) for name in plain)


def test_undo_brings_back_every_bit_and_keeps_no_copy_of_what_the_checkpoint_holds():
    model = tiny.load(MIXTRAL)
    before, shapes = everything(model), {model.get_parameter(path).shape for path in EXPERTS}

    def stacks():
        gc.collect()
        tensors = [thing for thing in gc.get_objects() if type(thing) in (torch.Tensor, torch.nn.Parameter)]
        return sum(tensor.shape in shapes and not tensor.is_meta for tensor in tensors)

    alive = stacks()
    kbitlint.fix(model, unsafe=True)

    assert stacks() == alive - len(EXPERTS)
    assert kbitlint.undo(model) == 1
    assert everything(model) == before
    assert tiny.step(tiny.with_lora(model)).trains


def test_what_was_changed_since_loading_comes_back_as_it_was_changed():
    model = tiny.load(MIXTRAL)
    model.get_parameter(EXPERTS[0]).data[0, 0, 0] = float("nan")
    before = everything(model)

    kbitlint.fix(model, unsafe=True)
    kbitlint.undo(model)

    assert everything(model) == before


def test_a_failure_while_packing_leaves_the_model_identical(monkeypatch):
    import bitsandbytes.nn.parametrize as packer

    model = tiny.load(MIXTRAL)
    before = everything(model)
    real, calls = packer.replace_parameter_4bit, []

    def failing(*arguments, **named):
        calls.append(arguments)
        real(*arguments, **named)
        if len(calls) == 3:
            raise torch.cuda.OutOfMemoryError("planted")

    monkeypatch.setattr(packer, "replace_parameter_4bit", failing)
    with pytest.raises(EditError, match=r"cannot pack 'model\.layers\.1\.mlp\.experts\.down_proj': OutOfMemoryError: planted"):
        kbitlint.fix(model, unsafe=True)

    assert everything(model) == before


def test_a_second_fix_changes_nothing_and_a_plan_packs_nothing():
    model = tiny.load(MIXTRAL)
    before = everything(model)

    planned = kbitlint.plan(model, unsafe=True)
    assert everything(model) == before

    assert kbitlint.fix(model, unsafe=True).applied.edits == planned
    assert kbitlint.fix(model, unsafe=True).applied.edits == ()


def test_experts_that_peft_widened_are_narrowed_and_packed():
    from peft import prepare_model_for_kbit_training

    model = prepare_model_for_kbit_training(tiny.load(MIXTRAL), gradient_checkpointing_kwargs={"use_reentrant": False})

    report = kbitlint.fix(model, unsafe=True)

    assert report.violations == ()
    assert nbytes(model) == nbytes(packed())
    assert tiny.step(tiny.with_lora(model)).trains


@pytest.mark.parametrize("state", ["int8", "trained", "adapted", "tied"])
def test_where_it_is_not_ours_to_pack_it_is_only_shown(state):
    model = tiny.load(MIXTRAL, "int8" if state == "int8" else "nf4")
    if state == "trained":
        model = tiny.with_lora(model)
        for path in EXPERTS:
            model.get_base_model().get_parameter(path).requires_grad = True
    if state == "adapted":
        model = get_peft_model(model, LoraConfig(target_parameters=["experts.gate_up_proj", "experts.down_proj"]))
    if state == "tied":
        first, second = (layer.mlp.experts for layer in model.model.layers)
        second.gate_up_proj, second.down_proj = first.gate_up_proj, first.down_proj

    fixes = [violation.fix for violation in kbitlint.check(model, select="KB504").violations]

    assert fixes
    assert {fix.safety.name for fix in fixes} == {"DISPLAY"}


def test_adapters_that_peft_cannot_put_on_packed_experts_are_an_error():
    names = [path for path in EXPERTS if path.endswith("gate_up_proj")]
    config = LoraConfig(r=4, init_lora_weights=False, target_modules=[], target_parameters=names)
    model = packed()
    model.gradient_checkpointing_disable()
    model = get_peft_model(model, config)
    fine = tiny.load(MIXTRAL)
    kbitlint.fix(fine)
    fine = get_peft_model(fine, config)

    found = [v for v in kbitlint.check(model).violations if v.severity.value == "error"]

    assert [(v.code, v.at.path) for v in found] == [("KB606", path) for path in names]
    assert "KB606" not in {v.code for v in kbitlint.check(fine).violations}
    assert [tiny.step(model).trains for _ in range(2)] == [True, False]
    assert [tiny.step(fine).trains for _ in range(2)] == [True, True]


def test_a_folder_keeps_its_weights_and_loads_packed(run, tmp_path):
    folder = shutil.copytree(tiny.checkpoint(MIXTRAL), tmp_path / "mixtral")
    weights = (folder / "model.safetensors").read_bytes()

    fixed = run("--fix", "--unsafe-fixes", folder, "--quantize", "nf4", "--device", "cpu")
    again = run("check", folder)
    model = kbitlint.load_prepared(folder, device="cpu")

    assert (fixed.exit_code, again.exit_code) == (0, 0), fixed.output + again.output
    assert "nf4 on 4 fused experts" in " ".join(again.output.split())
    assert (folder / "model.safetensors").read_bytes() == weights
    kbitlint.assert_ready(model, fail_on="warning")
    assert nbytes(model) == nbytes(packed())
    assert tiny.step(tiny.with_lora(model)).trains


def test_adapters_over_packed_experts_are_saved_and_loaded_as_ever(tmp_path):
    from peft import PeftModel

    model = tiny.with_lora(packed())
    model.save_pretrained(tmp_path)

    loaded = PeftModel.from_pretrained(packed(), tmp_path, is_trainable=True)

    expected, found = tiny.step(model), tiny.step(loaded)
    assert (found.loss, found.arrived) == (expected.loss, expected.arrived)


@pytest.mark.parametrize("family", [MIXTRAL, "llama"])
def test_single_parameters_of_a_checkpoint_are_what_loading_gives(family):
    model = tiny.load(family, "none")
    stored = StoredParameters(model, tiny.checkpoint(family))

    for name, parameter in model.named_parameters():
        assert torch.equal(stored.parameter(name, parameter.dtype), parameter), name
    assert stored.parameter("model.nowhere", torch.bfloat16) is None


def test_what_is_no_stack_of_float_matrices_is_refused():
    model = tiny.load(MIXTRAL)
    before = everything(model)

    for path in ("model.layers.0.mlp.experts.nothing", "model.layers.0.self_attn.q_proj.weight"):
        with pytest.raises(EditError, match="is no float parameter"):
            apply.apply(model, [Edit("pack-experts", path)], Journal())

    assert everything(model) == before


def test_dbrx_stacks_its_experts_in_two_dimensions():
    config = transformers.DbrxConfig(d_model=64, n_heads=4, n_layers=2, vocab_size=tiny.VOCAB, max_seq_len=64)
    config.ffn_config.ffn_hidden_size = config.ffn_config.hidden_size = 64
    config.attn_config.kv_n_heads, config.attn_config.rope_theta = 2, 10_000.0
    config.ffn_config.moe_num_experts, config.ffn_config.moe_top_k = 4, 2

    with torch.device("meta"):
        facts = collect(transformers.DbrxForCausalLM(config))

    assert {p.path.rpartition(".")[2] for p in facts.parameters if p.bank} == {"w1", "v1", "w2"}


def test_the_page_shows_them_as_what_they_are():
    from kbitlint.model.inspect.outline import outline_of

    model = packed()

    rows = {row.path: row for row in outline_of(model, collect(model))}

    experts = rows["model.layers.0.mlp.experts"]
    assert (experts.numel, [kind for kind, _ in experts.stored]) == (4 * 64 * 128 * 3, ["nf4"])
    assert not any("parametrizations" in path for path in rows)
