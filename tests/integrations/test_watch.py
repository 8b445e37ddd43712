"""The watch over the first steps: in Trainer, in a loop of accelerate, in Lightning; faults that only a step shows."""

from __future__ import annotations

import json
import logging
import time

import accelerate
import lightning
import pytest
import tiny
import torch
import transformers
from torch import nn

import kbitlint
from kbitlint.integrations import accelerate as in_accelerate
from kbitlint.integrations import lightning as in_lightning
from kbitlint.integrations.gate import REPORT, NotReadyError
from kbitlint.integrations.trainer import KbitlintCallback
from kbitlint.integrations.watch import WATCHED, Watch

ROWS = [{"input_ids": torch.arange(16), "labels": torch.arange(16)} for _ in range(32)]
QUIET = {"select": "KB202"}  # what the audit finds is tested elsewhere
KINDS = ("without_gradient", "unchanged", "nonfinite_gradients", "nonfinite_values", "changed_frozen")


def good():
    return tiny.with_lora(tiny.prepared())


def paths(model, *, trainable=True):
    return tuple(name.removeprefix("base_model.model.") for name, p in model.named_parameters() if p.requires_grad is trainable)


def found(watched):
    """The states that the watch reports, without those that no parameter is in."""
    return {kind: getattr(watched.seen, kind) for kind in KINDS if getattr(watched.seen, kind)}


# ------------------------------------------------------------------------------------------- three frameworks, one watch


def with_trainer(model, folder, *, steps=4, watch=3, optimizer=None, rate=0.01, **settings):
    callback = KbitlintCallback("never", watch=watch, **QUIET)
    args = transformers.TrainingArguments(
        output_dir=str(folder), report_to=[], max_steps=steps, learning_rate=rate, disable_tqdm=True,
        per_device_train_batch_size=2, lr_scheduler_type="constant", **{"use_cpu": True, **settings},
    )  # fmt: skip
    trainer = transformers.Trainer(
        model=model, args=args, train_dataset=ROWS, callbacks=[callback], optimizers=(optimizer, None)
    )
    trainer.train()
    return callback.watched


def with_accelerate(model, folder, *, steps=4, watch=3, optimizer=None, rate=0.01, gradient_accumulation_steps=1):
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=gradient_accumulation_steps)
    optimizer = optimizer or torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)
    loader = torch.utils.data.DataLoader(ROWS, batch_size=2)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    audit = in_accelerate.check(accelerator, model, optimizer, fail_on="never", watch=watch, output_dir=folder, **QUIET)
    model.train()
    made = 0
    for batch in loader:
        with accelerator.accumulate(model):
            accelerator.backward(model(**batch).loss)
            optimizer.step()
            optimizer.zero_grad()
        made += accelerator.sync_gradients
        if made == steps:
            break
    assert "step" not in vars(optimizer) or audit.watched is None
    return audit.watched


class Module(lightning.LightningModule):
    def __init__(self, model, optimizer, rate):
        super().__init__()
        self.model, self.made, self.rate = model, optimizer, rate

    def training_step(self, batch, _):
        return self.model(**batch).loss

    def configure_optimizers(self):
        return self.made or torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=self.rate)


def lightning_run(model, folder, callback, *, steps=4, optimizer=None, rate=0.01, gradient_accumulation_steps=1, **settings):
    trainer = lightning.Trainer(
        max_steps=steps, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[callback], default_root_dir=folder, barebones=False,
        accumulate_grad_batches=gradient_accumulation_steps, **settings,
    )  # fmt: skip
    trainer.fit(Module(model, optimizer, rate), torch.utils.data.DataLoader(ROWS, batch_size=2))
    return callback


def with_lightning(model, folder, *, watch=3, **settings):
    return lightning_run(model, folder, in_lightning.KbitlintCallback("never", watch=watch, **QUIET), **settings).watched


RUNS = {"trainer": with_trainer, "accelerate": with_accelerate, "lightning": with_lightning}
every_framework = pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)


@every_framework
def test_a_healthy_run_has_nothing_to_report(run, tmp_path, caplog):
    model = good()

    with caplog.at_level(logging.INFO, "kbitlint"):
        watched = run(model, tmp_path)

    assert (watched.findings, found(watched)) == ((), {})
    assert (watched.seen.steps, watched.seen.skipped) == (3, 0)
    assert (watched.seen.trainable, watched.seen.frozen) == (len(paths(model)), len(paths(model, trainable=False)))
    assert caplog.text.count("kbitlint watched the first 3 steps") == 1
    assert "nothing to report" in caplog.text
    assert json.loads((tmp_path / WATCHED).read_text()) == {
        "seen": json.loads(json.dumps(watched.seen.as_dict())),
        "findings": [],
    }


@every_framework
def test_an_optimizer_without_the_adapters_changes_none_of_them(run, tmp_path):
    model = good()
    elsewhere = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)

    watched = run(model, tmp_path, optimizer=elsewhere)

    assert found(watched) == {"unchanged": paths(model)}
    assert [finding.rules for finding in watched.findings] == ["KB307, KB706"]


@every_framework
def test_parameters_outside_the_loss_receive_no_gradient(run, tmp_path):
    model = good()
    model.base_model.model.model.layers[1].self_attn.register_parameter("unused", nn.Parameter(torch.ones(3)))

    watched = run(model, tmp_path)

    assert found(watched) == {"without_gradient": ("model.layers.1.self_attn.unused",)}


@every_framework
def test_a_frozen_parameter_that_code_beside_the_optimizer_moves_is_named(run, tmp_path):
    model = good()
    norm = model.get_base_model().model.norm.weight
    norm.requires_grad = False
    model.register_forward_pre_hook(lambda *_: norm.data.mul_(1.01) is None or None)

    watched = run(model, tmp_path)

    assert found(watched) == {"changed_frozen": ("model.norm.weight",)}
    assert [str(finding) for finding in watched.findings] == [
        f"1 of {watched.seen.frozen} frozen parameters changed: model.norm.weight"
    ]


@every_framework
def test_a_nan_in_the_gradient_is_seen_with_what_it_does_to_the_weights(run, tmp_path):
    model = good()
    (first, *_) = (p for p in model.parameters() if p.requires_grad)
    first.register_hook(lambda gradient: gradient * float("nan"))

    watched = run(model, tmp_path, **({"max_grad_norm": 0.0} if run is with_trainer else {}))

    assert set(found(watched)) == {"nonfinite_gradients", "nonfinite_values"}
    assert paths(model)[0] in watched.seen.nonfinite_values  # the others follow in the next step


@every_framework
def test_a_learning_rate_of_zero_is_the_reason_and_not_the_parameters(run, tmp_path):
    watched = run(good(), tmp_path, rate=0.0)

    assert [str(finding) for finding in watched.findings] == ["the learning rate was 0 in every step that was watched"]


@every_framework
def test_steps_are_those_of_the_optimizer_where_gradients_accumulate(run, tmp_path):
    watched = run(good(), tmp_path, steps=3, watch=2, gradient_accumulation_steps=2)

    assert (watched.seen.steps, found(watched)) == (2, {})


@pytest.mark.parametrize("run", [with_trainer, with_lightning])
def test_a_run_shorter_than_the_watch_is_reported_at_its_end(run, tmp_path):
    watched = run(good(), tmp_path, steps=2, watch=50)

    assert (watched.seen.steps, found(watched)) == (2, {})


def test_half_precision_values_that_no_step_can_move_did_not_change(tmp_path):
    model = good()
    magnitude = nn.Parameter(torch.full((4,), 256.0, dtype=torch.bfloat16))
    model.base_model.model.register_parameter("magnitude", magnitude)
    model.register_forward_hook(lambda _, __, out: setattr(out, "loss", out.loss + magnitude.float().sum() * 1e-3))

    watched = with_trainer(model, tmp_path, rate=1e-4)

    assert found(watched) == {"unchanged": ("magnitude",)}


# ------------------------------------------------------------------------------------------------------------ the scaler


class Scaled:
    """A loop with the gradient scaler of torch, around an optimizer that a watch follows by its events."""

    def __init__(self, model, watch):
        self.model = model
        self.optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
        self.told = []
        self.watch = Watch(model, watch, self.told.append)

    def step(self):
        loss = self.model(**{name: value[None] for name, value in ROWS[0].items()}).loss
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        self.watch.gradients([0.01])
        before = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.watch.stepped(skipped=self.scaler.get_scale() < before)
        self.optimizer.zero_grad()


def test_steps_that_the_scaler_skips_are_counted_and_end_the_watch():
    model = good()
    (first, *_) = (p for p in model.parameters() if p.requires_grad)
    first.register_hook(lambda gradient: gradient * float("inf"))
    loop = Scaled(model, 2)

    while not loop.watch.done:
        loop.step()

    (watched,) = loop.told
    assert (watched.seen.steps, watched.seen.skipped, found(watched)) == (0, 16, {})
    assert [str(finding) for finding in watched.findings] == [
        "the gradient scaler skipped 16 of 16 steps (KB101, KB106, KB121)"
    ]


def test_a_few_skipped_steps_at_the_start_are_how_float16_trains():
    model = good()
    (first, *_) = (p for p in model.parameters() if p.requires_grad)
    loop, calls = Scaled(model, 2), []
    first.register_hook(lambda gradient: gradient * (float("inf") if not calls.append(0) and len(calls) == 1 else 1.0))

    while not loop.watch.done:
        loop.step()

    (watched,) = loop.told
    assert (watched.seen.steps, watched.seen.skipped, watched.findings, found(watched)) == (2, 1, (), {})


# ------------------------------------------------------------------------------------------------ the audit before the run


def frozen():
    model = good()
    model.requires_grad_(False)
    return model


def test_the_audit_stops_a_loop_of_accelerate_before_its_first_step(tmp_path):
    accelerator, model = accelerate.Accelerator(cpu=True, project_dir=str(tmp_path)), frozen()
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), 0.1))

    with pytest.raises(NotReadyError, match="training was stopped before its first step") as raised:
        in_accelerate.check(accelerator, model, optimizer)

    assert {violation.code for violation in raised.value.report.violations} >= {"KB202"}
    assert "KB202" in {v["code"] for v in json.loads((tmp_path / REPORT).read_text())["targets"][0]["violations"]}


def test_the_audit_reads_what_the_accelerator_says(tmp_path):
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    accelerator, model = accelerate.Accelerator(cpu=True, mixed_precision="bf16"), good()
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    model, optimizer = accelerator.prepare(model, optimizer)
    numbers = []

    audit = in_accelerate.check(accelerator, model, optimizer, fail_on="never", report_to=numbers.append)
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)

    assert {v.at.path for v in audit.report.violations if v.code == "KB706"} == set(paths(model))
    assert not [skip for skip in audit.report.skips if "autocast" in skip.reason]
    assert [entry["kbitlint/KB706"] for entry in numbers] == [float(len(paths(model)))]


def test_the_audit_stops_lightning_before_its_first_step(tmp_path):
    model = good()
    tiny.bind_reentrant(model, use_reentrant=True)
    callback = in_lightning.KbitlintCallback()

    with pytest.raises(NotReadyError):
        lightning_run(model, tmp_path, callback)

    assert {violation.code for violation in callback.report.at_least(kbitlint.Severity.ERROR)} == {"KB301"}


def test_lightning_leaves_the_mode_of_modules_and_so_does_the_audit(tmp_path):
    model = good().eval()
    callback = lightning_run(model, tmp_path, in_lightning.KbitlintCallback("never"))

    assert not model.training
    assert callback.report.crashes == ()


def test_the_summary_goes_to_the_loggers_of_lightning(tmp_path):
    from lightning.pytorch.loggers import CSVLogger

    trainer = lightning.Trainer(
        max_steps=1, accelerator="cpu", logger=CSVLogger(tmp_path), enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[in_lightning.KbitlintCallback("never", **QUIET)], log_every_n_steps=1,
        default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(Module(good(), None, 0.01), torch.utils.data.DataLoader(ROWS, batch_size=2))
    trainer.logger.save()

    (metrics,) = tmp_path.rglob("metrics.csv")
    assert (metrics.parent / REPORT).is_file()
    assert "kbitlint/error" in metrics.read_text()


# ---------------------------------------------------------------------------------------------------------- its own cost


def test_after_its_report_the_watch_costs_less_than_a_hundredth_of_a_step(tmp_path):
    """What the callback does in a step after the watch, against the duration of a step of a tiny model."""
    model = good()
    started = time.perf_counter()
    callback = KbitlintCallback("never", watch=2, **QUIET)
    args = transformers.TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[], max_steps=6, disable_tqdm=True)
    trainer = transformers.Trainer(model=model, args=args, train_dataset=ROWS, callbacks=[callback])
    trainer.train()
    step = (time.perf_counter() - started) / 60  # a step takes longer than that
    assert callback.watched is not None

    started = time.perf_counter()
    for _ in range(1000):
        callback.on_pre_optimizer_step(args, trainer.state, trainer.control, model=model, optimizer=trainer.optimizer)
        callback.on_optimizer_step(args, trainer.state, trainer.control, model=model, optimizer=trainer.optimizer)
    cost = (time.perf_counter() - started) / 1000

    assert cost < 0.01 * step


@pytest.mark.parametrize("watch", [1, -1, "3"])
def test_a_wrong_number_of_steps_is_named_when_the_callback_is_made(watch):
    with pytest.raises(kbitlint.KbitlintError, match="is no number of steps to watch"):
        KbitlintCallback(watch=watch)


def test_a_loop_without_an_optimizer_cannot_be_watched():
    with pytest.raises(kbitlint.KbitlintError) as raised:
        in_accelerate.check(accelerate.Accelerator(cpu=True), good(), watch=3)

    assert str(raised.value) == "watch=3: pass the optimizer, whose steps are watched"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the peak of CUDA memory needs CUDA")
def test_the_peak_on_cuda_is_compared_with_the_computed_one(tmp_path):
    model = tiny.with_lora(tiny.prepared(device="cuda"))

    watched = with_trainer(model, tmp_path, use_cpu=False)

    assert watched.seen.batch == (2, 16)
    assert watched.seen.peak is None or watched.seen.promised > 0
