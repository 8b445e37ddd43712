from __future__ import annotations

import pytest
import tiny
import torch
from script_cases import ADAPTED, IMPORTS, LOADED, PREPARED, findings
from transformers import Trainer, TrainingArguments
from trl import DPOConfig, KTOConfig

import kbitlint
from kbitlint.context import TrainingContext

CODE = "KB719"
NO_STEP = "the learning rate is 0: no step changes a parameter"
NO_LOSS = "beta is 0: the loss multiplies what the model says with it, and no gradient is left"
PREFERENCES = "from trl import DPOConfig, KTOConfig, SFTConfig\n"
START = LOADED + PREPARED + ADAPTED


@pytest.mark.parametrize(
    "line",
    [
        "optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)",
        "optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0)",
        "args = TrainingArguments('out', learning_rate=0.0)",
    ],
)
def test_a_rate_of_zero_changes_nothing(line):
    assert findings(CODE, START + f"{line}\n") == [("error", line, NO_STEP)]


@pytest.mark.parametrize(
    "line",
    [
        "optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)",
        "optimizer = torch.optim.AdamW(model.parameters(), lr=rate)",
        "optimizer = torch.optim.AdamW(model.parameters())",
        "optimizer = torch.optim.AdamW([{'params': model.parameters(), 'lr': 1e-4}], lr=1e-3)",
        "args = TrainingArguments('out', weight_decay=0.0)",
        "args = TrainingArguments('out', learning_rate=2e-4)",
        "args = DPOConfig('out', beta=0.1)",
        "args = DPOConfig('out', beta=0.0, loss_type='ipo')",
        "args = SFTConfig('out', beta=0.0)",
    ],
)
def test_look_alikes(line):
    assert findings(CODE, START + f"{line}\n", imports=IMPORTS + PREFERENCES) == []


SCHEDULED = "the schedule multiplies the learning rate with 0: no step changes a parameter"
CLIPPED = "every gradient is clipped to 0: no step changes a parameter"
SCHEDULE = "scheduler = torch.optim.lr_scheduler."


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (SCHEDULE + "LambdaLR(optimizer, lambda step: 0.0)", SCHEDULED),
        (SCHEDULE + "LambdaLR(optimizer, lr_lambda=lambda step: 0)", SCHEDULED),
        (SCHEDULE + "ConstantLR(optimizer, factor=0.0, total_iters=100)", SCHEDULED),
        ("torch.nn.utils.clip_grad_norm_(model.parameters(), 0.0)", CLIPPED),
        ("torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=0)", CLIPPED),
        (SCHEDULE + "LambdaLR(optimizer, lambda step: min(1.0, step / 100))", ""),
        (SCHEDULE + "LambdaLR(optimizer, schedule)", ""),
        ("torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)", ""),
        ("torch.nn.utils.clip_grad_norm_(model.parameters(), limit)", ""),
    ],
)
def test_a_factor_of_every_update_that_is_zero(line, message):
    assert findings(CODE, START + f"optimizer = torch.optim.AdamW(model.parameters())\n{line}\n") == [
        ("error", line, message)
    ] * bool(message)


@pytest.mark.parametrize("line", ["args = DPOConfig('out', beta=0.0)", "args = KTOConfig('out', beta=0)"])
def test_a_preference_loss_times_zero_has_no_gradient(line):
    assert findings(CODE, START + f"{line}\n", imports=IMPORTS + PREFERENCES) == [("error", line, NO_LOSS)]


@pytest.mark.parametrize(
    ("context", "told"),
    [
        (TrainingContext(learning_rate=0.0), [NO_STEP]),
        (TrainingContext(beta=0.0), [NO_LOSS]),
        (TrainingContext(learning_rate=1e-4, beta=0.1), []),
        (TrainingContext(), []),
    ],
)
def test_a_run_that_multiplies_with_zero_is_told_on_its_model(context, told):
    report = kbitlint.check(tiny.with_lora(tiny.load()), select=CODE, context=context, trace=False)

    assert [(v.severity.value, v.at.path, v.message) for v in report.violations] == [("error", "", text) for text in told]


def test_the_rate_of_a_trainer_is_that_of_the_optimizer_that_it_was_given(tmp_path):
    model = tiny.with_lora(tiny.load())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    args = TrainingArguments(output_dir=str(tmp_path), learning_rate=0.0, use_cpu=True, report_to=[])

    assert TrainingContext.from_trainer(Trainer(model=model, args=args)).learning_rate == 0
    assert TrainingContext.from_trainer(Trainer(model=model, args=args, optimizers=(optimizer, None))).learning_rate == 0.5


def test_what_counts_as_the_factor_of_a_loss(tmp_path):
    def read(cls, **values):
        args = cls(output_dir=str(tmp_path), use_cpu=True, report_to=[], **values)
        return TrainingContext.from_training_arguments(args).beta

    assert [read(DPOConfig, beta=0.0), read(KTOConfig, beta=0.0), read(DPOConfig)] == [0, 0, 0.1]
    assert [read(DPOConfig, beta=0.5, loss_type="ipo"), read(TrainingArguments)] == [None, None]


def rates(model, *groups):
    factors = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.AdamW([{"params": factors[at :: len(groups)], "lr": rate} for at, rate in enumerate(groups)])


def test_a_live_optimizer_whose_groups_all_have_a_rate_of_zero_moves_nothing():
    model = tiny.with_lora(tiny.load())
    optimizer = rates(model, 0.0, 0.0)
    found = kbitlint.check(model, select=CODE, optimizer=optimizer).violations
    assert [(v.at.path, v.severity.value, v.message) for v in found] == [("", "error", NO_STEP)]
    before = [parameter.detach().clone() for parameter in model.parameters() if parameter.requires_grad]
    assert tiny.step(model).trains
    optimizer.step()
    assert all(map(torch.equal, before, (parameter for parameter in model.parameters() if parameter.requires_grad)))


def test_a_group_with_a_rate_or_a_warm_up_that_begins_at_zero_is_no_fault():
    model = tiny.with_lora(tiny.load())
    assert kbitlint.check(model, select=CODE, optimizer=rates(model, 0.0, 1e-4)).violations == ()
    warming = rates(model, 1e-4)
    torch.optim.lr_scheduler.LambdaLR(warming, lambda step: step / 10)
    assert warming.param_groups[0]["lr"] == 0.0
    assert kbitlint.check(model, select=CODE, optimizer=warming).violations == ()
