"""The adapters for axolotl, ms-swift and LLaMA-Factory, which pin other versions of transformers than the tests install.

Their stand-ins here have the published interface of axolotl 0.19 (``integrations/base.py``), ms-swift 4.6
(``callbacks/mapping.py``, ``trainers/mixin.py``) and LLaMA-Factory 0.9.5 (``train/tuner.py``); the Trainer is a real one.
"""

from __future__ import annotations

import importlib
import json
import sys
import types

import pytest
import tiny
import torch
import transformers

import kbitlint
from kbitlint.integrations.gate import REPORT
from kbitlint.integrations.trainer import KbitlintCallback
from kbitlint.integrations.watch import WATCHED

ROWS = [{"input_ids": torch.arange(16), "labels": torch.arange(16)} for _ in range(8)]
SETTINGS = {"watch": 2, "fail_on": "never", "select": "KB202"}


@pytest.fixture
def package(monkeypatch):
    """Return a function that installs a module of a package for one test."""

    def install(name, **content):
        parts = name.split(".")
        for end in range(1, len(parts)):
            monkeypatch.setitem(sys.modules, ".".join(parts[:end]), types.ModuleType(parts[0]))
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
        return module

    return install


def trainer_with(callbacks, folder):
    args = transformers.TrainingArguments(
        output_dir=str(folder), use_cpu=True, report_to=[], max_steps=3, disable_tqdm=True, learning_rate=0.01
    )
    model = tiny.with_lora(tiny.prepared())
    return transformers.Trainer(model=model, args=args, train_dataset=ROWS, callbacks=callbacks)


def watched(folder):
    assert (folder / REPORT).is_file()
    return json.loads((folder / WATCHED).read_text())


class BasePlugin:
    """The methods that axolotl's plugin manager calls around a trainer, as its base class has them."""

    def add_callbacks_pre_trainer(self, *_):
        return []


@pytest.fixture
def plugin(package, monkeypatch):
    package("axolotl.integrations.base", BasePlugin=BasePlugin)
    monkeypatch.delitem(sys.modules, "kbitlint.integrations.axolotl", raising=False)
    return importlib.import_module("kbitlint.integrations.axolotl")


def test_axolotl_adds_the_callback_with_the_settings_of_its_configuration(plugin, tmp_path):
    cfg, made = {"kbitlint": SETTINGS}, plugin.KbitlintPlugin()
    module, _, name = made.get_input_args().rpartition(".")
    accepted = getattr(importlib.import_module(module), name)(**cfg)
    made.register(cfg)
    trainer = trainer_with(made.add_callbacks_pre_trainer(cfg, None), tmp_path)
    for callback in made.add_callbacks_post_trainer(cfg, trainer):
        trainer.add_callback(callback)

    trainer.train()

    assert accepted.kbitlint == SETTINGS
    assert watched(tmp_path)["findings"] == []


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (3, "kbitlint: 3 in axolotl's configuration is no mapping of settings, as watch: 3 is"),
        ({"wach": 3}, "kbitlint: in axolotl's configuration: unknown argument 'wach'"),
        ({"fail_on": "errors"}, "fail_on: 'errors' is none of info, warning, error, never; did you mean 'error'?"),
    ],
)
def test_axolotl_refuses_wrong_settings_before_it_loads_a_model(plugin, value, problem):
    with pytest.raises(kbitlint.KbitlintError) as raised:
        plugin.KbitlintPlugin().register({"kbitlint": value})

    assert str(raised.value).startswith(problem)


def test_axolotl_without_the_key_uses_the_defaults(plugin):
    (callback,) = plugin.KbitlintPlugin().add_callbacks_post_trainer({}, None)

    assert isinstance(callback, KbitlintCallback)


class Swift:
    """As swift's trainers make the callbacks that their arguments name."""

    def __init__(self, package):
        self.callbacks_map = {}
        package("swift.callbacks", callbacks_map=self.callbacks_map)

    def trainer(self, names, folder):
        trainer = trainer_with([], folder)
        for name in names:
            trainer.add_callback(self.callbacks_map[name](trainer.args, trainer))
        return trainer


def test_swift_makes_the_registered_callback_by_its_name(package, tmp_path):
    from kbitlint.integrations import swift

    framework = Swift(package)
    swift.register(**SETTINGS)

    framework.trainer(["kbitlint"], tmp_path).train()

    assert watched(tmp_path)["findings"] == []


def test_swift_refuses_wrong_settings_in_the_plugin_file(package):
    from kbitlint.integrations import swift

    framework = Swift(package)

    with pytest.raises(kbitlint.KbitlintError, match="is no number of steps to watch"):
        swift.register(watch=1)
    assert framework.callbacks_map == {}


class LateCallback(transformers.TrainerCallback):
    """Cannot log before its own ``on_train_begin``, as the printer of ms-swift."""

    def on_train_begin(self, *_, **__):
        self.logged = []

    def on_log(self, *_, logs=None, **__):
        self.logged.append(logs)


def test_a_later_callback_that_logs_has_begun_before_the_summary_is_logged(tmp_path):
    late = LateCallback()

    trainer_with([KbitlintCallback(**SETTINGS), late], tmp_path).train()

    assert [logs["kbitlint/error"] for logs in late.logged if "kbitlint/error" in logs] == [0.0]


def test_a_later_callback_that_cannot_log_yet_does_not_hide_the_report(tmp_path):
    callback, late = KbitlintCallback("error", select="KB202"), LateCallback()
    trainer = trainer_with([callback, late], tmp_path)
    trainer.model.requires_grad_(False)
    trainer.create_optimizer = lambda *_: setattr(trainer, "optimizer", torch.optim.SGD(trainer.model.parameters(), 0.1))

    with pytest.raises(kbitlint.KbitlintError, match="KB202"):
        trainer.train()

    assert trainer.state.log_history[-1]["kbitlint/error"] == 1.0


def test_llamafactory_trains_with_the_callback_first(package, tmp_path):
    from kbitlint.integrations import llamafactory

    trained, further = [], transformers.TrainerCallback()

    def run_exp(args=None, callbacks=None):
        trained.append((args, callbacks))
        trainer_with(callbacks, tmp_path).train()

    package("llamafactory.train.tuner", run_exp=run_exp)
    llamafactory.train({"stage": "sft"}, [further], **SETTINGS)

    ((arguments, callbacks),) = trained
    assert (arguments, callbacks[1]) == ({"stage": "sft"}, further)
    assert watched(tmp_path)["findings"] == []
