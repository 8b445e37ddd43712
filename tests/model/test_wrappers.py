"""Wrappers and hooks that libraries put around a model are seen through: the verdict is that of the bare model.

DDP, FSDP and torch.compile are held in real processes in ``test_ranks.py``.
"""

from __future__ import annotations

import pytest
import tiny
from accelerate import dispatch_model
from accelerate.hooks import AlignDevicesHook, ModelHook, SequentialHook, add_hook_to_module
from torch import nn

import kbitlint
from kbitlint.audit.run import context_of
from kbitlint.context import Strategy, TrainingContext

NAMES = ("model.embed_tokens", "model.layers.0", "model.layers.1", "model.norm", "model.rotary_emb", "lm_head")


def faulty(model):
    """Adapters below reentrant checkpoints that no gradient enters."""
    model = tiny.with_lora(model)
    tiny.bind_reentrant(model, use_reentrant=True)
    return model


def on_every_module(model):
    model = faulty(model)
    for module in list(model.modules()):
        add_hook_to_module(module, ModelHook())
    return model


def on_the_base(model):
    model = faulty(model)
    hook = SequentialHook(ModelHook(), AlignDevicesHook("cpu", io_same_device=True))
    add_hook_to_module(model.get_base_model(), hook)
    return model


def dispatched(model):
    dispatch_model(model, dict.fromkeys(NAMES, "cpu"), main_device="cpu", force_hooks=True)
    return faulty(model)


@pytest.mark.parametrize("hooked", [on_every_module, on_the_base, dispatched])
def test_accelerate_hooks_change_no_verdict_and_no_path(hooked):
    bare, model = kbitlint.check(faulty(tiny.load())), hooked(tiny.load())

    report = kbitlint.check(model)

    assert (report.violations, report.skips, report.ran) == (bare.violations, bare.skips, bare.ran)
    assert {violation.code for violation in bare.violations} >= {"KB101", "KB301", "KB401"}
    assert "does not require grad" in tiny.step(model).error
    assert kbitlint.fix(model, unsafe=True).violations == ()
    assert tiny.step(model).trains


class DeepSpeedEngine(nn.Module):
    """DeepSpeed's engine as far as it concerns a model: DeepSpeed is not among the test packages.

    ``deepspeed.runtime.engine.DeepSpeedEngine`` registers the client's model as its child ``module``, calls it, and
    says its stage in ``zero_optimization_stage()``.
    """

    def __init__(self, model, stage):
        super().__init__()
        self.module = model
        self.stage = stage

    def forward(self, *inputs, **kwargs):
        return self.module(*inputs, **kwargs)

    def zero_optimization_stage(self):
        return self.stage


@pytest.mark.parametrize(("stage", "strategy"), [(0, None), (1, Strategy.ZERO2), (2, Strategy.ZERO2), (3, Strategy.ZERO3)])
def test_a_deepspeed_engine_is_seen_through_and_says_its_stage(stage, strategy):
    bare = faulty(tiny.load())

    engine = DeepSpeedEngine(bare, stage)

    assert context_of(engine, TrainingContext()).strategy is strategy
    told = TrainingContext(strategy=strategy)
    assert kbitlint.check(engine).violations == kbitlint.check(bare, context=told).violations
