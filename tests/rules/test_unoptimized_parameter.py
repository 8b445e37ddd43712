from __future__ import annotations

import pytest
import tiny
import torch
from script_cases import ADAPTED, LOADED, findings

from kbitlint.context import TrainingContext
from kbitlint.engine import run
from kbitlint.facts.ranks import RanksFacts
from kbitlint.model.inspect.optimizer import optimizer_facts
from kbitlint.model.inspect.walk import collect
from kbitlint.registry import find
from kbitlint.violation import Surface

CODE = "KB706"
# a real Trainer and a real SFTTrainer run into it in tests/integrations/test_trainer.py


def outcome(model, optimizer):
    held = None if optimizer is None else optimizer_facts(model, optimizer)
    return run([find(CODE)], {Surface.RANKS: RanksFacts(1, collect(model), (), held)}, TrainingContext())


def found(model, optimizer):
    return [(v.at.path, v.severity.value, v.message) for v in outcome(model, optimizer).violations]


def lora(**overrides):
    return tiny.with_lora(tiny.load(), target_modules=["q_proj"], **overrides)


def test_an_optimizer_built_on_the_finished_model_is_clean():
    model = lora()

    assert found(model, torch.optim.SGD(model.parameters(), 0.1)) == []
    assert found(model, torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)) == []


def test_adapters_attached_after_the_optimizer_are_not_held_and_never_change():
    base = tiny.load()
    optimizer = torch.optim.SGD(list(base.parameters()), 0.1)
    model = tiny.with_lora(base, target_modules=["q_proj"])

    assert found(model, optimizer) == [
        (
            f"model.layers.{layer}.self_attn.q_proj.lora_{side}.default.weight",
            "error",
            "the optimizer does not hold this trainable parameter",
        )
        for layer in (0, 1)
        for side in ("A", "B")
    ]
    before = [p.detach().clone() for p in model.parameters() if p.requires_grad]
    assert tiny.step(model).trains
    optimizer.step()
    assert all(torch.equal(b, p) for b, p in zip(before, [p for p in model.parameters() if p.requires_grad], strict=True))


def test_tensors_that_the_model_does_not_have_any_more_are_a_warning():
    model = lora()
    optimizer = torch.optim.SGD([*model.parameters(), torch.nn.Parameter(torch.zeros(2))], 0.1)

    assert found(model, optimizer) == [
        ("", "warning", "the optimizer holds 1 tensors that are no parameter of the model"),
    ]


def test_accelerates_wrapper_around_the_optimizer_is_seen_through():
    class Wrapper:
        def __init__(self, optimizer):
            self.optimizer = optimizer

    model = lora()

    assert found(model, Wrapper(torch.optim.SGD(model.parameters(), 0.1))) == []


def test_without_an_optimizer_the_rule_is_skipped():
    reasons = [skip.reason for skip in outcome(lora(), None).skips]

    assert reasons == ["no optimizer whose parameters could be told apart is at hand"]
    assert [skip.reason for skip in outcome(lora(), object()).skips] == reasons


# --------------------------------------------------------------------------------------------------------------- source

EARLY = "optimizer = torch.optim.AdamW(model.parameters())\n"
TRAIN = "model.train()\nfor batch in loader:\n    model(**batch).loss.backward()\n    optimizer.step()\n"
TOLD = "the optimizer was built before the adapters, and holds none of them"
GIVEN = "Trainer(model, args=TrainingArguments('out'), optimizers=(optimizer, None)).train()\n"


@pytest.mark.parametrize(
    "script",
    [
        LOADED + EARLY + ADAPTED + TRAIN,
        LOADED + EARLY + ADAPTED + GIVEN,
        LOADED + EARLY.replace("model.parameters()", "[p for p in model.parameters()]") + ADAPTED + TRAIN,
        LOADED + EARLY.replace("model.parameters()", "[{'params': list(model.parameters())}]") + ADAPTED + TRAIN,
        LOADED + EARLY.replace("torch.optim.AdamW", "bitsandbytes.optim.PagedAdamW8bit") + ADAPTED + TRAIN,
        LOADED + EARLY + ADAPTED + "print(sum(p.numel() for p in model.parameters()))\n" + TRAIN,
        LOADED + EARLY + ADAPTED + TRAIN + "    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)\n",
        LOADED + EARLY + "SFTTrainer(model, peft_config=LoraConfig(), optimizers=(optimizer, None)).train()\n",
    ],
)
def test_a_script_that_builds_the_optimizer_first(script):
    found = findings(CODE, "import bitsandbytes\n" + script)

    assert [(severity, message) for severity, _, message in found] == [("error", TOLD)]
    assert found[0][1].startswith("optimizer = ")


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(LOADED + ADAPTED + EARLY + TRAIN, id="afterwards"),
        pytest.param(LOADED + EARLY + TRAIN, id="no adapters"),
        pytest.param(LOADED + EARLY + ADAPTED + EARLY + TRAIN, id="built again"),
        pytest.param(
            LOADED + EARLY + ADAPTED + "optimizer.add_param_group({'params': model.parameters()})\n" + TRAIN, id="added"
        ),
        pytest.param(LOADED + EARLY + ADAPTED + "optimizer = build(model)\n" + TRAIN, id="built elsewhere"),
        pytest.param(
            LOADED + EARLY + ADAPTED + GIVEN.replace("(optimizer, None)", "(None, None)"), id="Trainer builds its own"
        ),
        pytest.param(LOADED + EARLY + ADAPTED + GIVEN.replace("optimizers=(optimizer, None)", "seed=1"), id="not handed over"),
        pytest.param(LOADED + EARLY.replace("model.parameters()", "other") + ADAPTED + TRAIN, id="of something else"),
        pytest.param(LOADED + EARLY + "if flag:\n    " + ADAPTED + TRAIN, id="adapters on one path"),
        pytest.param(
            LOADED + "if flag:\n    " + EARLY + ADAPTED + "if not flag:\n    " + EARLY + TRAIN, id="late on the other path"
        ),
    ],
)
def test_scripts_whose_optimizer_holds_the_adapters(script):
    assert findings(CODE, script) == []
