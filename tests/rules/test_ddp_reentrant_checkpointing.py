from __future__ import annotations

import pytest
import tiny
from peft import prepare_model_for_kbit_training

import kbitlint
from kbitlint.context import Checkpointing, Strategy, TrainingContext

CODE = "KB701"
# what really happens under DDP is held against this rule in tests/integrations/test_ranks.py


def ddp(**further):
    return TrainingContext(**{"strategy": Strategy.DDP, "find_unused_parameters": True} | further)


def reentrant():
    return tiny.with_lora(prepare_model_for_kbit_training(tiny.load(), gradient_checkpointing_kwargs={"use_reentrant": True}))


def found(model, context):
    report = kbitlint.check(model, select=CODE, context=context, trace=False)
    return [(v.at.path, v.severity.value, v.fix.safety.value) for v in report.violations]


LAYERS = ("model.layers.0", "model.layers.1")


def test_both_layers_are_errors_where_ddp_finds_unused_parameters():
    assert found(reentrant(), ddp()) == [(layer, "error", "safe") for layer in LAYERS]


def test_what_ddp_is_told_is_a_warning_where_nobody_says_it():
    assert found(reentrant(), ddp(find_unused_parameters=None)) == [(layer, "warning", "safe") for layer in LAYERS]


@pytest.mark.parametrize(
    "context",
    [
        ddp(find_unused_parameters=False),
        ddp(static_graph=True),
        ddp(strategy=Strategy.SINGLE),
    ],
)
def test_where_ddp_does_not_walk_the_graph_nothing_is_marked_twice(context):
    assert found(reentrant(), context) == []


def test_without_a_strategy_the_rule_is_skipped_and_says_why():
    report = kbitlint.check(reentrant(), select=CODE, trace=False)

    assert [skip.reason for skip in report.skips] == ["how ranks share the model is not known (--training)"]


def test_the_fix_makes_it_clean():
    model = reentrant()
    kbitlint.fix(model, select=CODE, context=ddp(), trace=False)

    assert found(model, ddp()) == []
    assert tiny.step(model).trains


def test_the_training_arguments_decide_what_is_bound_before_the_first_step():
    asks = Checkpointing(enabled=True, use_reentrant=True, installs_hook=True)
    puts_right = Checkpointing(enabled=True, use_reentrant=False)

    assert found(reentrant(), ddp(gradient_checkpointing=puts_right)) == []
    assert found(tiny.with_lora(tiny.load()), ddp(gradient_checkpointing=asks)) == [
        (layer, "error", "display") for layer in LAYERS
    ]


def test_parameters_outside_the_checkpointed_layers_do_not_count():
    model = tiny.with_lora(tiny.load(), target_modules=["q_proj"], modules_to_save=["lm_head"])
    tiny.bind_reentrant(model, use_reentrant=True)
    model.get_base_model().enable_input_require_grads()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lm_head" in name and "modules_to_save" in name)
    model.train()

    assert found(model, ddp()) == []


def test_layers_that_no_gradient_enters_are_the_business_of_another_rule():
    model = tiny.with_lora(tiny.load())
    tiny.bind_reentrant(model, use_reentrant=True)
    model.train()

    assert found(model, ddp()) == []


def test_adapters_that_were_put_into_eval_mode_recompute_nothing():
    model = reentrant().eval()

    assert found(model, ddp()) == []
    assert len(found(model, ddp(sets_training_mode=True))) == 2
