"""Edits: any failure at any point leaves the model as it was, and undo restores every bit."""

from __future__ import annotations

import copy
import pickle

import pytest
import tiny
import torch

import kbitlint
from kbitlint.errors import EditError, KbitlintError
from kbitlint.fixes.model import FixError, fix_model, suspects
from kbitlint.model.edits import apply as edits_apply
from kbitlint.model.edits.journal import Journal, journaled
from kbitlint.violation import Edit


@pytest.fixture(scope="module")
def plan():
    return kbitlint.fix(tiny.load()).applied.edits


class _Stop(BaseException):
    """What an edit raises here: as Ctrl-C, it is no Exception."""


def test_the_plan_is_data_and_the_same_each_time(plan):
    assert kbitlint.fix(tiny.load()).applied.edits == plan


def test_the_plan_is_everything_that_a_fix_does_and_changes_nothing(plan):
    model = tiny.load()
    before = tiny.state(model)

    planned = kbitlint.plan(model)

    assert planned == plan
    assert (tiny.state(model), kbitlint.undo(model)) == (before, 0)


@pytest.mark.parametrize("first", [0, *(pytest.param(first, marks=pytest.mark.slow) for first in (1, 2, 3))])
def test_a_failure_at_each_edit_in_turn_leaves_the_model_identical(plan, monkeypatch, first):
    """Each edit fails with the next of four errors; the slow tests have the other pairs."""
    errors = (KeyboardInterrupt, MemoryError, torch.cuda.OutOfMemoryError, _Stop)
    model = tiny.load()
    before = tiny.state(model)
    for index in range(len(plan)):
        error = errors[(index + first) % len(errors)]
        applied = []

        def failing(kind, index=index, applied=applied, error=error):
            def apply(place, journal):
                kind(place, journal)
                applied.append(place.edit)
                if len(applied) == index + 1:
                    raise error("planted")

            return apply

        monkeypatch.setattr(edits_apply, "KINDS", {name: failing(kind) for name, kind in edits_apply.KINDS.items()})
        with pytest.raises(KbitlintError if issubclass(error, Exception) else error, match="planted"):
            kbitlint.fix(model)
        monkeypatch.undo()

        assert len(applied) == index + 1
        assert tiny.state(model) == before


def test_ctrl_c_during_the_rollback_waits_for_it():
    journal = Journal()
    undone = []
    interrupts = [KeyboardInterrupt()]

    def interrupted():
        if interrupts:
            raise interrupts.pop()
        undone.append("second")

    journal.record(lambda: undone.append("first"))
    journal.record(interrupted)
    with pytest.raises(KeyboardInterrupt):
        journal.rollback()

    assert (undone, len(journal)) == (["second", "first"], 0)


def test_undo_restores_every_bit_of_a_peft_model():
    model = tiny.with_lora(tiny.load())
    before = tiny.state(model)

    kbitlint.fix(model, unsafe=True)
    kbitlint.fix(model, unsafe=True)

    assert (kbitlint.undo(model), kbitlint.undo(model)) == (1, 0)
    assert tiny.state(model) == before


def test_edits_that_are_already_there_change_nothing(plan):
    model = tiny.load()
    kbitlint.fix(model)
    before = tiny.state(model)

    with journaled(Journal()) as journal:
        edits_apply.apply(model, [edit for edit in plan if edit.kind not in ("train", "enable-checkpointing")], journal)

    assert tiny.state(model) == before


def test_the_edits_of_a_base_fit_it_under_its_adapters(plan):
    model = tiny.with_lora(tiny.load("opt"))
    freezes = [Edit("freeze", "model.decoder.layers.0.self_attn.q_proj.bias")]
    model.get_base_model().model.decoder.layers[0].self_attn.q_proj.base_layer.bias.requires_grad_(True)

    with journaled(Journal()) as journal:
        edits_apply.apply(model, freezes, journal)

    assert not model.get_base_model().model.decoder.layers[0].self_attn.q_proj.base_layer.bias.requires_grad


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            Edit("polish", "model.norm"),
            "unknown kind of edit 'polish'; this version knows add-input-grad-hook, ",
        ),
        (Edit("float32-norm", "model.nrm"), "float32-norm: LlamaForCausalLM has no module 'model.nrm'"),
        (Edit("freeze", "model.norm.wait"), "freeze: LlamaForCausalLM has no parameter 'model.norm.wait'"),
        (Edit("bind-checkpoint", "model.norm"), "bind-checkpoint: 'model.norm' has no checkpoint function bound"),
        (Edit("set-config", "config.nothing"), "set-config: the model has no 'config.nothing'"),
    ],
)
def test_an_edit_that_does_not_fit_is_refused_by_name(edit, message):
    with pytest.raises(EditError) as refused:
        edits_apply.apply(tiny.load(), [edit], Journal())

    assert str(refused.value).startswith(message)


def test_a_class_without_checkpointing_refuses_it():
    model = tiny.load()
    model.supports_gradient_checkpointing = False

    with pytest.raises(EditError, match="enable-checkpointing: LlamaForCausalLM does not support it"):
        edits_apply.apply(model, [Edit("enable-checkpointing")], Journal())


def test_a_fix_that_does_not_help_is_an_error_and_is_taken_back(monkeypatch):
    model = tiny.load()
    before = tiny.state(model)
    monkeypatch.setitem(edits_apply.KINDS, "freeze", lambda place, journal: None)

    with pytest.raises(
        FixError, match=r"^KB201: the edit freeze of lm_head.weight does not remove its violation; the model was left"
    ):
        kbitlint.fix(model)

    assert tiny.state(model) == before


def test_fixes_that_never_end_are_stopped(monkeypatch):
    from kbitlint.context import TrainingContext
    from kbitlint.fixes import model as fixes_model
    from kbitlint.registry import all_rules
    from kbitlint.violation import Safety

    monkeypatch.setattr(fixes_model, "MAX_PASSES", 1)

    with pytest.raises(FixError):
        fix_model(tiny.load(), all_rules(), TrainingContext(), Safety.SAFE)


def test_transparent_norms_survive_copy_pickle_and_a_state_dict_round_trip(tmp_path):
    model = tiny.load()
    kbitlint.fix(model, select="KB101")
    norm = model.model.norm
    half = torch.randn(2, 64, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path, device_map={"": "cpu"})

    for other in (copy.deepcopy(norm), pickle.loads(pickle.dumps(norm))):  # noqa: S301  # our own bytes
        assert (other.weight.dtype, other(half).dtype) == (torch.float32, torch.bfloat16)
        assert torch.equal(other(half), norm(half))
    assert torch.equal(again.model.norm.weight.float(), norm.weight)


def test_transparent_norms_cast_what_they_are_given_and_give_back():
    class Gated(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))

        def forward(self, x, *, gate=None, mask=None):
            assert x.dtype == gate.dtype == torch.float32
            assert mask.dtype == torch.bool
            return [x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True)) * self.weight, (gate, mask, None)]

    holder = torch.nn.ModuleDict({"norm": Gated()})
    edits_apply.apply(holder, [Edit("float32-norm", "norm", {"interface": "transparent"})], Journal())
    half = torch.ones(2, 4, dtype=torch.float16)

    first, (gate, mask, nothing) = holder["norm"](half, gate=half, mask=half > 0)

    assert (first.dtype, gate.dtype, mask.dtype, nothing) == (torch.float16, torch.float16, torch.bool, None)


def test_running_statistics_of_a_norm_are_cast_with_its_weight():
    holder = torch.nn.ModuleDict({"norm": torch.nn.BatchNorm1d(4).bfloat16()})
    before = dict(holder["norm"]._buffers)
    journal = Journal()
    edits_apply.apply(holder, [Edit("float32-norm", "norm", {"interface": "transparent"})], journal)

    assert holder["norm"].running_var.dtype == torch.float32
    assert holder["norm"](torch.randn(8, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16

    journal.rollback()

    assert all(holder["norm"]._buffers[name] is buffer for name, buffer in before.items())


def test_transparent_norms_compile():
    model = tiny.load()
    kbitlint.fix(model, select="KB101")
    norm = model.model.norm
    half = torch.randn(2, 3, 64, dtype=torch.bfloat16)

    compiled = torch.compile(norm, backend="eager", fullgraph=True)

    assert torch.equal(compiled(half), norm(half))


class TestProbe:
    def test_it_leaves_the_model_as_it_was(self):
        from kbitlint.model.probe import probe

        model = tiny.with_lora(tiny.prepared())
        model.eval()
        tiny.step(model, train=False)
        gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
        before, state = tiny.state(model), torch.random.get_rng_state()

        found = probe(model)

        assert (found.failure, found.gradients, found.expected, found.at_embeddings) == (None, 28, 28, False)
        assert tiny.state(model) == before
        assert torch.equal(torch.random.get_rng_state(), state)
        assert all(parameter.grad is gradients[name] for name, parameter in model.named_parameters())

    def test_what_is_trainable_can_be_left_out_of_it(self):
        from kbitlint.model.probe import probe

        model = tiny.load()
        before = tiny.state(model)

        found = probe(model, at_embeddings=True)

        assert (found.failure, found.at_embeddings, found.gradients, found.expected) == (None, True, 1, 1)
        assert tiny.state(model) == before

    def test_a_step_that_raises_is_its_failure(self):
        from kbitlint.model.probe import probe

        model = tiny.with_lora(tiny.prepared())
        tiny.bind_reentrant(model)

        assert probe(model).failure == "RuntimeError: element 0 of tensors does not require grad and does not have a grad_fn"

    def test_a_loss_that_is_not_finite_is_a_failure(self):
        from kbitlint.model.probe import probe

        model = tiny.with_lora(tiny.prepared())
        model.get_base_model().model.norm.weight.data.fill_(float("inf"))

        assert probe(model).failure == "the loss is nan"

    def test_gradients_that_are_not_finite_are_a_failure(self):
        from kbitlint.model.probe import probe

        model = tiny.with_lora(tiny.prepared())
        _name, parameter = next((n, p) for n, p in model.named_parameters() if p.requires_grad)
        parameter.register_hook(lambda gradient: gradient * float("inf"))

        found = probe(model)

        assert (found.failure, found.gradients) == ("1 gradients are not finite", 27)

    @pytest.mark.parametrize("fails_unfixed", [False, True])
    def test_a_step_that_only_the_fix_breaks_is_exit_2_and_nothing_is_written(self, run, tmp_path, monkeypatch, fails_unfixed):
        import shutil

        from kbitlint.result import Probe

        folder = shutil.copytree(tiny.checkpoint(), tmp_path / "llama")
        failed, fine = Probe("cpu", None, 0, 1, failure="planted"), Probe("cpu", 1.0, 1, 1)
        answers = [failed, failed if fails_unfixed else fine]
        monkeypatch.setattr("kbitlint.model.probe.probe", lambda model, **_: answers.pop(0))

        result = run("--fix", folder, "--quantize", "nf4", "--device", "cpu")

        said = {
            True: "the training step on cpu proves nothing: it fails without the fix too (planted)",
            False: "training step on cpu failed: planted",
        }
        assert (result.exit_code, (folder / "kbitlint.json").exists()) == ((0, True) if fails_unfixed else (2, False))
        assert said[fails_unfixed] in " ".join(result.output.split())


class Reader(torch.nn.Module):
    """What BLIP-2's query former does: it takes its dtype from a norm's weight, and hands it to other layers."""

    def __init__(self):
        super().__init__()
        self.layernorm = torch.nn.LayerNorm(64, dtype=torch.bfloat16)
        self.proj = torch.nn.Linear(64, 64, dtype=torch.bfloat16)

    def forward(self, hidden):
        query = hidden.to(self.layernorm.weight.dtype)
        return self.layernorm(query) + self.proj(hidden.to(query.dtype))


def with_reader():
    model = tiny.load()
    model.model.layers[1].mlp = Reader()
    return model


def test_an_edit_that_breaks_the_step_is_taken_back_and_the_others_stay():
    model = with_reader()
    path = "model.layers.1.mlp.layernorm"

    report = kbitlint.fix(model)

    assert [edit.path for edit in report.applied.taken_back] == [path]
    assert {v.at.path for v in report.violations if v.code == "KB101"} == {path}
    assert model.model.norm.weight.dtype == torch.float32
    assert "1 edit taken back, with which the training step raises" in str(report)
    assert tiny.step(tiny.with_lora(model)).trains


def test_what_is_taken_back_is_not_planned_and_undo_restores_the_rest():
    model = with_reader()
    before = tiny.state(model)

    planned = kbitlint.plan(model)
    report = kbitlint.fix(model)

    assert planned == report.applied.edits
    assert kbitlint.fix(model).applied.edits == ()
    kbitlint.undo(model)
    assert tiny.state(model) == before


def test_a_step_that_raises_without_the_fix_too_takes_nothing_back():
    model = with_reader()
    model.model.layers[1].mlp.proj.float()

    assert kbitlint.fix(model).applied.taken_back == ()


def test_the_likeliest_edits_are_blamed_first():
    read, far, plain, flag = (
        Edit("float32-norm", "tower.norm", {"output": "bfloat16"}, adds_bytes=8),
        Edit("float32-norm", "model.norm", {"output": "bfloat16"}, adds_bytes=8),
        Edit("float32-norm", "model.ln", adds_bytes=8),
        Edit("train"),
    )
    new = [("tower.proj", "mm")]

    blamed = [suspects(done, new) for done in ((flag, plain, far, read), (flag, plain, far), (flag, plain), (flag,), ())]

    assert blamed == [(read,), (far,), (plain,), (flag,), ()]


class TestProof:
    """The step that proves a fix."""

    def test_adamw_steps_and_everything_is_as_before(self):
        from kbitlint.model.probe import probe

        model = tiny.with_lora(tiny.prepared())
        before, rng = tiny.state(model), torch.random.get_rng_state()

        found = probe(model, batch=3, seq_len=8)

        assert (found.failure, found.stepped, found.gradients, found.peak_bytes) == (None, True, 28, None)
        assert tiny.state(model) == before
        assert torch.equal(torch.random.get_rng_state(), rng)
        assert all(parameter.grad is None for parameter in model.parameters())

    def test_a_frozen_parameter_that_changes_is_a_failure(self, monkeypatch):
        from kbitlint.model.probe import probe

        model = tiny.with_lora(tiny.prepared())
        head = model.get_base_model().lm_head.weight
        before = head.detach().clone()
        step = torch.optim.AdamW.step

        def careless(self):
            step(self)
            head.data[0, 0] += 1

        monkeypatch.setattr(torch.optim.AdamW, "step", careless)

        found = probe(model)
        head.data.copy_(before)

        assert (found.failure, found.stepped) == ("the optimizer changed the frozen base_model.model.lm_head.weight", False)

    def test_an_optimizer_that_breaks_the_adapters_is_a_failure(self, monkeypatch):
        from kbitlint.model.probe import probe

        model = tiny.with_lora(tiny.prepared())
        before = tiny.state(model)

        def broken(self):
            self.param_groups[0]["params"][0].data.fill_(float("nan"))

        monkeypatch.setattr(torch.optim.AdamW, "step", broken)

        assert probe(model).failure == "1 trained parameters are not finite after the optimizer's step"
        assert tiny.state(model) == before

    def test_trained_parameters_that_keep_every_bit_are_a_failure(self, monkeypatch):
        from kbitlint.model.probe import probe

        model = tiny.with_lora(tiny.prepared())
        monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: None)

        trained = sum(parameter.requires_grad for parameter in model.parameters())
        assert probe(model).failure == f"{trained} trained parameters did not change, although a gradient arrived"

    def test_norms_in_bfloat16_that_no_step_moves_are_a_failure(self):
        from kbitlint.model.probe import probe

        model = tiny.with_lora(tiny.load(), modules_to_save=["norm"])

        assert probe(model).failure == "5 trained parameters did not change, although a gradient arrived"

    def test_a_base_without_adapters_makes_no_step(self):
        from kbitlint.model.probe import probe

        found = probe(tiny.prepared())

        assert (found.failure, found.stepped, found.at_embeddings) == (None, False, True)

    @pytest.mark.parametrize("change", ["swap", "flip"])
    def test_the_fingerprint_sees_any_change(self, monkeypatch, change):
        from kbitlint.model import probe as module

        monkeypatch.setattr(module, "_CHUNK", 4)
        tensor = torch.arange(12, dtype=torch.uint8)
        before = module._fingerprint(tensor)
        if change == "swap":  # across chunks, at the same place in each
            tensor[[1, 5]] = tensor[[5, 1]]
        else:
            tensor[7] ^= 1

        assert module._fingerprint(tensor) != before

    def test_the_batch_is_the_users(self, run, tmp_path, monkeypatch):
        import shutil

        from kbitlint.result import Probe

        asked = []

        def noted(model, **arguments):
            asked.append(arguments)
            return Probe("cpu", 1.0, 1, 1)

        monkeypatch.setattr("kbitlint.model.probe.probe", noted)
        folder = shutil.copytree(tiny.checkpoint(), tmp_path / "llama")

        result = run("--fix", folder, "--quantize", "nf4", "--device", "cpu", "--probe-batch", 4, "--probe-seq", 128)

        assert (result.exit_code, asked) == (0, [{"batch": 4, "seq_len": 128}])


class TestNormStyles:
    """``--norms``: kbitlint's way, PEFT's, or none."""

    def test_pefts_way_is_what_its_prepare_does(self):
        from peft import prepare_model_for_kbit_training

        ours, theirs = tiny.load(), tiny.load()
        kbitlint.fix(ours, norms="peft")
        prepare_model_for_kbit_training(theirs, gradient_checkpointing_kwargs={"use_reentrant": False})

        def seen(model):
            return {name: (p.dtype, p.requires_grad) for name, p in model.named_parameters()}

        assert seen(ours) == seen(theirs)
        assert kbitlint.fix(ours, norms="peft").applied.edits == ()
        assert kbitlint.fix(ours, norms="peft", unsafe=True).applied.edits == ()
        assert tiny.step(tiny.with_lora(ours)).trains

    def test_norms_can_be_kept(self):
        model = tiny.load()
        before = {name: p.dtype for name, p in model.named_parameters()}

        report = kbitlint.fix(model, norms="keep")

        assert {name: p.dtype for name, p in model.named_parameters()} == before
        assert {v.code for v in report.violations} == {"KB101"}
        assert kbitlint.fix(model, norms="keep").applied.edits == ()
        assert tiny.step(tiny.with_lora(model)).trains

    def test_the_plan_and_the_command_line_follow(self, run, tmp_path):
        import json
        import shutil

        folder = shutil.copytree(tiny.checkpoint(), tmp_path / "llama")
        arguments = (folder, "--quantize", "nf4", "--norms", "keep")

        shown = run("check", "--diff", *arguments, "--format", "json")
        fixed = run("--fix", *arguments, "--device", "cpu", "--output", tmp_path / "kept.json")

        kinds = {edit["kind"] for edit in json.loads(shown.stdout)["targets"][0]["planned"]["safe"]}
        assert kinds == {"enable-checkpointing", "freeze", "set-config", "train"}
        assert fixed.exit_code == 1  # the norms are left
        assert {edit["kind"] for edit in json.loads((tmp_path / "kept.json").read_text())["edits"]} == kinds
        assert not (folder / "kbitlint.json").exists()

    def test_a_name_that_there_is_not_is_one_clear_line(self):
        with pytest.raises(kbitlint.KbitlintError, match=r"^norms: 'peff' is none of transparent, peft, keep; did you mean"):
            kbitlint.fix(tiny.load(), norms="peff")


class TestPrepare:
    """``kbitlint.prepare``: a stored preparation on a model that was loaded in another way."""

    @pytest.fixture(scope="class")
    def file(self, tmp_path_factory):
        import shutil

        folder = shutil.copytree(tiny.checkpoint(), tmp_path_factory.mktemp("prepared") / "llama")
        report = kbitlint.fix(folder, device="cpu", quantize="nf4")
        return report.applied.left_behind

    def test_a_loaded_model_is_prepared_and_undone(self, file):
        from pathlib import Path

        model = tiny.load()
        before = tiny.state(model)

        assert kbitlint.prepare(model, file) == len(kbitlint.plan(tiny.load()))
        kbitlint.assert_ready(model, fail_on="warning")
        assert kbitlint.undo(model) == 1
        assert tiny.state(model) == before
        assert kbitlint.prepare(model, Path(file).parent) > 0

    def test_a_file_that_does_not_fit_leaves_the_model_as_it_was(self, file, tmp_path):
        from pathlib import Path

        model = tiny.load("gpt2 (Conv1D)")
        before = tiny.state(model)

        with pytest.raises(kbitlint.KbitlintError, match=r"kbitlint\.json.*does not fit this model"):
            kbitlint.prepare(model, file)
        with pytest.raises(kbitlint.KbitlintError, match=r"none\.json: no such file; `kbitlint --fix` writes it"):
            kbitlint.prepare(model, Path(tmp_path) / "none.json")

        assert tiny.state(model) == before


class TestWhatAFixHolds:
    """Undo must not cost what the fix was made to save, nor keep a model alive."""

    def test_a_fixed_model_is_freed_with_its_last_name(self):
        import gc
        import weakref

        model = tiny.load()
        kbitlint.fix(model, unsafe=True)
        alive = weakref.ref(model)

        del model
        gc.collect()

        assert alive() is None

    def test_a_copy_of_a_fixed_model_has_nothing_to_undo(self):
        model = tiny.load()
        kbitlint.fix(model)

        copied = copy.deepcopy(model)

        assert (kbitlint.undo(copied), kbitlint.undo(model), kbitlint.undo(model)) == (0, 1, 0)
        kbitlint.assert_ready(copied, fail_on="warning")

    def test_what_pefts_prepare_cast_is_given_back_in_memory_and_comes_back_bit_for_bit(self):
        import gc

        from peft import prepare_model_for_kbit_training

        model = prepare_model_for_kbit_training(tiny.load(), gradient_checkpointing_kwargs={"use_reentrant": False})
        before = {name: (p.dtype, p.detach().clone()) for name, p in model.named_parameters()}
        kept = model.lm_head.weight.data.untyped_storage()._weak_ref()

        kbitlint.fix(model, unsafe=True)
        gc.collect()

        assert model.lm_head.weight.dtype == torch.bfloat16
        assert torch.UntypedStorage._new_with_weak_ptr(kept) is None
        kbitlint.undo(model)
        assert all(p.dtype == before[name][0] and torch.equal(p, before[name][1]) for name, p in model.named_parameters())

    def test_what_would_lose_bits_is_kept(self):
        model = tiny.load()
        model.lm_head.weight.data = torch.randn_like(model.lm_head.weight, dtype=torch.float32)
        before = model.lm_head.weight.detach().clone()
        journal = Journal()

        edits_apply.apply(model, [Edit("narrow-parameter", "lm_head.weight", {"dtype": "bfloat16"})], journal)
        assert model.lm_head.weight.dtype == torch.bfloat16
        journal.rollback()

        assert torch.equal(model.lm_head.weight, before)
