"""The main job on a real nf4 Llama: every planted fault is named exactly, fixed, and proven by a training step."""

from __future__ import annotations

import json
from pathlib import Path

import plants
import pytest
import tiny

import kbitlint

PLANTS = Path(plants.__file__)
SETS = {**{name: [name] for name in plants.FAULTS}, **plants.TOGETHER}


def factory(kind, name):
    return f"{PLANTS}:{kind}_{name.replace('-', '_').replace(' ', '_')}"


def factory_of(name):
    return factory("faulty" if name in plants.FAULTS else "together", name)


def audited(result):
    """The (code, path) of every violation in a JSON report."""
    (target,) = json.loads(result.stdout)["targets"]
    assert target["crashes"] == []
    return {(violation["code"], violation["at"]["path"]) for violation in target["violations"]}


@pytest.mark.parametrize("name", SETS)
def test_check_names_exactly_the_planted_faults_and_the_default_gate_is_a_warning(run, name):
    severities = {plants.FAULTS[fault].severity for fault in SETS[name]}

    result = run("check", factory_of(name), "--format", "json")

    assert (result.exit_code, audited(result)) == (0 if severities == {"info"} else 1, plants.shown(*SETS[name]))


def test_the_gate_may_be_an_info(run):
    (name,) = [name for name, fault in plants.FAULTS.items() if fault.severity == "info"][:1]

    assert run("check", factory_of(name), "--fail-on", "info").exit_code == 1


@pytest.mark.parametrize("name", SETS)
def test_fix_on_the_cpu_leaves_nothing(run, name):
    changed = {"float32-compute-dtype", "float16-compute", "float32-frozen-weight"}  # their fixes change what is computed
    unsafe = ["--unsafe-fixes"] if changed & set(SETS[name]) else []

    result = run("--fix", *unsafe, factory_of(name), "--device", "cpu", "--fail-on", "info", "--format", "json")

    assert (result.exit_code, audited(result)) == (0, set())


@pytest.mark.parametrize("name", SETS)
def test_after_the_fix_every_adapter_parameter_receives_a_finite_gradient(name):
    model = plants.faulty(*SETS[name])

    report = kbitlint.fix(model, unsafe=True, probe=True)

    assert (report.violations, report.applied.probe.failure) == ((), None)
    taken = tiny.step(tiny.with_lora(model))
    assert (taken.error, taken.missing, len(taken.arrived)) == (None, (), 28)


def test_a_clean_model_is_clean(run):
    result = run("check", f"{PLANTS}:clean", "--format", "json", "--fail-on", "info")

    assert (result.exit_code, audited(result)) == (0, set())


def test_an_unprepared_model_shows_what_loading_leaves_undone():
    report = kbitlint.check(tiny.load())

    assert {violation.code for violation in report.violations} == {"KB101", "KB201", "KB402"}


def test_an_unquantized_model_is_said_to_be_so(run):
    result = run("check", f"{PLANTS}:unquantized", "--format", "json", "--fail-on", "info")

    assert (result.exit_code, audited(result)) == (1, {("KB501", "")})


class TestErrorsReallyBreakTraining:
    """The other side: without the fix, training with each fault of severity error learns nothing or fails."""

    def test_no_gradient_arrives_without_the_hook(self):
        model = tiny.with_lora(plants.faulty("missing-input-grad-hook"))

        assert tiny.codes(kbitlint.check(model)) == plants.shown("missing-input-grad-hook")
        assert tiny.step(model).error == "element 0 of tensors does not require grad and does not have a grad_fn"

    def test_nothing_learns_when_the_adapters_are_frozen(self):
        model = tiny.with_lora(tiny.prepared())
        for parameter in model.parameters():
            parameter.requires_grad_(False)

        report = kbitlint.check(model)

        assert [(v.code, v.severity.value) for v in report.violations] == [("KB202", "error")]
        assert tiny.step(model).error == "element 0 of tensors does not require grad and does not have a grad_fn"

    def test_frozen_adapters_fail_silently_behind_an_embedding_hook(self):
        from peft import prepare_model_for_kbit_training

        model = prepare_model_for_kbit_training(tiny.with_lora(tiny.load()))

        assert ("KB202", "") in tiny.codes(kbitlint.check(model))
        taken = tiny.step(model)
        assert (taken.error, taken.arrived, taken.missing) == (None, (), ())

    @pytest.mark.parametrize("name", [name for name, fault in plants.FAULTS.items() if fault.severity != "error"])
    def test_what_is_no_error_does_train(self, name):
        taken = tiny.step(tiny.with_lora(plants.faulty(name)))

        assert (taken.error, taken.missing, len(taken.arrived)) == (None, (), 28)


def plant(base, fault):
    """Plant a fault into the base below adapters, leaving the adapters as they are."""
    adapters = [parameter for name, parameter in base.named_parameters() if "lora_" in name]
    plants.FAULTS[fault].plant(base)
    for parameter in adapters:
        parameter.requires_grad_(True)


class TestPeftModel:
    """The same on a model that has its adapters already."""

    @pytest.mark.parametrize("name", SETS)
    def test_faults_are_named_by_the_paths_of_the_users_own_model(self, name):
        model = tiny.with_lora(tiny.prepared())
        model.train()
        for fault in SETS[name]:
            plant(model.get_base_model(), fault)
        expected = {
            (code, f"{path}.base_layer" if code in ("KB106", "KB502") else path) for code, path in plants.shown(*SETS[name])
        }
        if "missing-input-grad-hook" in SETS[name] and "trainable-base-parameter" in SETS[name]:
            expected = {(code, path) for code, path in expected if code != "KB301"}  # the trainable embedding feeds the layers

        assert tiny.codes(kbitlint.check(model)) == expected

        report = kbitlint.fix(model, unsafe=True, probe=True)

        assert (report.violations, report.applied.probe.failure) == ((), None)
        assert tiny.step(model).trains

    def test_frozen_adapters_are_unfrozen_and_only_they(self):
        model = tiny.with_lora(tiny.prepared())
        wanted = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        for parameter in model.parameters():
            parameter.requires_grad_(False)

        kbitlint.fix(model)

        assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == wanted

    def test_a_base_parameter_that_somebody_unfroze_is_frozen_by_an_unsafe_fix_only(self):
        model = tiny.with_lora(tiny.prepared())
        model.train()
        plant(model.get_base_model(), "trainable-base-parameter")

        report = kbitlint.fix(model)

        assert (tiny.codes(report), report.applied.held_back) == (plants.shown("trainable-base-parameter"), 7)
