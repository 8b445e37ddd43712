"""An audit sees the same whatever modes its caller is in, and leaves the caller's modes and random numbers alone."""

from __future__ import annotations

import contextlib
import random

import numpy as np
import pytest
import tiny
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import kbitlint
from kbitlint.context import TrainingContext
from kbitlint.integrations.trainer import KbitlintCallback


@contextlib.contextmanager
def default_dtype(dtype):
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def default_device(device):
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


MODES = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "set_grad_enabled": lambda: torch.set_grad_enabled(False),
    "default dtype bfloat16": lambda: default_dtype(torch.bfloat16),
    "default dtype float64": lambda: default_dtype(torch.float64),
    "default device meta": lambda: default_device("meta"),
    "device meta": lambda: torch.device("meta"),
    "autocast bfloat16": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "autocast float16": lambda: torch.autocast("cpu", dtype=torch.float16),
    "anomaly": lambda: torch.autograd.set_detect_anomaly(True),
}


def modes():
    """All that an audit may find set, and has to leave as it is."""
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_anomaly_enabled(),
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_autocast_enabled("cpu"),
        torch.get_autocast_dtype("cpu"),
        torch.empty(0).device,
    )


def draws():
    return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002  # the global state is meant


def faulty():
    """A model that trains, with faults that fixes remove."""
    model = tiny.with_lora(tiny.load())
    tiny.adapters_base(model).gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model


def told(report):
    return report.violations, report.skips, report.crashes, report.ran, report.summary, report.applied, report.planned


def checked(model):
    return told(kbitlint.check(model, plan=True))


def fixed(model):
    report = kbitlint.fix(model, probe=True, unsafe=True)
    return (*told(report)[:-2], report.applied.edits, report.applied.probe.failure, report.applied.probe.stepped)


def undone(model):
    kbitlint.fix(model)
    return kbitlint.undo(model), {p.dtype for p in model.parameters()}


def ready(model):
    kbitlint.assert_ready(model, fail_on="error")


def measured(model):
    return kbitlint.memory(model, batch=1, seq_len=16)


def called_back(model):
    from types import SimpleNamespace

    said = []
    callback = KbitlintCallback(report_to=said.append, context=TrainingContext(autocast_dtype="bfloat16"))
    state = SimpleNamespace(is_world_process_zero=False, global_step=0, log_history=[])
    callback.on_train_begin(SimpleNamespace(output_dir="."), state, None, model=model)
    return told(callback.report)


ENTRIES = {function.__name__: function for function in (checked, fixed, undone, ready, measured, called_back, kbitlint.plan)}


@contextlib.contextmanager
def everything():
    with (
        torch.inference_mode(),
        default_dtype(torch.float64),
        torch.device("meta"),
        MODES["autocast float16"](),
        MODES["anomaly"](),
    ):
        yield


#: modes that "everything" does not set, and the entries of which one is another
ALONE = ("no_grad", "set_grad_enabled", "default dtype bfloat16", "default device meta")
CASES = (
    [pytest.param("checked", mode, marks=() if mode in ALONE else pytest.mark.slow) for mode in MODES]
    + [pytest.param(entry, "no_grad", marks=pytest.mark.slow) for entry in ("ready", "fixed")]
    + [(entry, "everything") for entry in ENTRIES]
)


@pytest.fixture(scope="module")
def expected():
    found = {}
    for name, entry in ENTRIES.items():
        torch.manual_seed(0)
        found[name] = entry(faulty())
    return found


@pytest.mark.parametrize(("entry", "mode"), CASES)
def test_every_entry_point_gives_the_same_in_every_mode_and_restores_it(entry, mode, expected):
    model = faulty()
    with {**MODES, "everything": everything}[mode]():
        torch.manual_seed(7)
        before, numbers = modes(), draws()
        found = ENTRIES[entry](model)

        assert (modes(), draws()) == (before, numbers)
    assert found == expected[entry]


class Operations(TorchDispatchMode):
    """A counter of operations, as ``FlopCounterMode`` is one."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


class Functions(TorchFunctionMode):
    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("entry", ["checked", "fixed", "measured"])
@pytest.mark.parametrize("mode", [FakeTensorMode, Operations, Functions])
def test_modes_of_the_caller_are_suspended_and_see_nothing(entry, mode, expected):
    model = faulty()
    with torch.device("cpu"), mode() as entered:
        found = ENTRIES[entry](model)
        assert getattr(entered, "seen", []) == []
        assert isinstance(torch.zeros(1), FakeTensor) is (mode is FakeTensorMode)
        assert bool(getattr(entered, "seen", [1]))  # the mode is back
    assert found == expected[entry]


def test_a_step_runs_where_hooks_on_saved_tensors_are_forbidden(expected):
    model, weight = faulty(), torch.ones(1, requires_grad=True)
    with torch.autograd.graph.disable_saved_tensors_hooks("not here"):
        assert checked(model) == expected["checked"]
        with pytest.raises(RuntimeError, match="not here"), torch.autograd.graph.save_on_cpu():
            weight.exp()


@pytest.mark.parametrize("mode", ["no_grad", "inference_mode", "default dtype float64", "device meta", "autocast float16"])
def test_what_a_fix_creates_in_any_mode_trains_and_is_taken_back_bit_for_bit(mode):
    model = faulty()
    before = tiny.state(model)
    with MODES[mode]():
        kbitlint.fix(model, norms="peft")
    tensors = [*model.parameters(), *model.buffers()]
    step = tiny.step(model.train())

    assert ([t for t in tensors if t.is_inference() or t.is_meta], step.error, step.missing) == ([], None, ())
    assert len(step.arrived) == 28
    model.eval()
    with MODES[mode]():
        assert kbitlint.undo(model) == 1
    assert tiny.state(model) == before


@pytest.mark.parametrize("mode", ["inference_mode", "device meta"])
def test_a_folder_is_prepared_and_loaded_the_same_in_every_mode(mode, tmp_path):
    import shutil

    folder = shutil.copytree(tiny.checkpoint(), tmp_path / "model")
    with MODES[mode]():
        report = kbitlint.fix(folder, quantize="nf4", device="cpu")
        model = kbitlint.load_prepared(folder, device="cpu")

    assert (report.applied.probe.failure, report.violations) == (None, ())
    step = tiny.step(tiny.with_lora(model))
    assert (step.error, step.missing, len(step.arrived)) == (None, (), 28)


def test_a_stored_preparation_is_applied_without_inference_tensors(tmp_path):
    import shutil

    folder = shutil.copytree(tiny.checkpoint(), tmp_path / "model")
    kbitlint.fix(folder, quantize="nf4", device="cpu")
    model = tiny.load()
    with torch.inference_mode():
        edits = kbitlint.prepare(model, folder)

    assert (edits > 0, [p for p in model.parameters() if p.is_inference()]) == (True, [])
    step = tiny.step(tiny.with_lora(model))
    assert (step.error, step.missing) == (None, ())


def test_a_factory_that_changes_the_modes_does_not_change_the_next_audit(tmp_path):
    (tmp_path / "train.py").write_text(
        "import random, torch, tiny\n"
        "torch.set_default_dtype(torch.bfloat16)\n"
        "torch.set_default_device('meta')\n"
        "torch.set_grad_enabled(False)\n"
        "torch.manual_seed(3); random.seed(3)\n"
        "def build():\n"
        "    torch.set_default_device(None)\n"
        "    model = tiny.with_lora(tiny.load())\n"
        "    torch.set_default_device('meta')\n"
        "    return model\n"
    )
    before, numbers = modes(), draws()
    report = kbitlint.check(f"{tmp_path / 'train.py'}:build")

    assert (modes(), draws()) == (before, numbers)
    assert {v.code for v in report.violations if v.severity is kbitlint.Severity.ERROR} == set()


@pytest.mark.parametrize("how", ["a layer", "a layer's call", "a forward", "all of it"])
def test_what_is_compiled_is_looked_at_without_compiling_anything(how):
    import torch._dynamo as dynamo

    model = tiny.with_lora(tiny.load())
    expected = checked(tiny.with_lora(tiny.load()))
    layers = tiny.adapters_base(model).model.layers
    if how == "a layer":
        layers[0] = torch.compile(layers[0], backend="eager")
    elif how == "a layer's call":
        layers[0].compile(backend="eager")
    elif how == "a forward":
        layers[0].forward = torch.compile(layers[0].forward, backend="eager")
    else:
        model = torch.compile(model, backend="eager")
    tiny.step(model)
    model.eval()
    frames, limits = dict(dynamo.utils.counters["frames"]), dynamo.config.recompile_limit
    found = checked(model)

    assert dict(dynamo.utils.counters["frames"]) == frames
    assert dynamo.config.recompile_limit == limits
    assert found[0] == expected[0]
    assert [skip for skip in found[1] if not skip.code] == []  # the step was run
    with torch.compiler.set_stance("fail_on_recompile"):  # what was compiled is still there
        assert tiny.step(model).error is None
