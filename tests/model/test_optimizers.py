"""A fix beside an optimizer that has made steps: its next step works and goes on from the same state, or nothing changes."""

from __future__ import annotations

import copy
import gc

import pytest
import tiny
import torch
import transformers

import kbitlint
from kbitlint.errors import KbitlintError

NORMS = 5


def model_with_trainable_norms():
    """Norms in bfloat16 that train, beside adapters in float32: a safe fix stores them in float32."""
    model = tiny.load()
    torch.manual_seed(0)
    model = tiny.with_lora(model)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.requires_grad_(True)
    return model


def norms_of(model):
    return [parameter for name, parameter in model.named_parameters() if "norm" in name and "lora" not in name]


def trained(model):
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


OPTIMIZERS = {
    "AdamW": lambda parameters: torch.optim.AdamW(parameters, lr=1e-2),
    "AdamW, amsgrad, no foreach": lambda p: torch.optim.AdamW(p, lr=1e-2, amsgrad=True, foreach=False),
    "AdamW, fused": lambda parameters: torch.optim.AdamW(parameters, lr=1e-2, fused=True),
    "SGD with momentum": lambda parameters: torch.optim.SGD(parameters, lr=1e-2, momentum=0.9),
    "Adafactor": lambda parameters: torch.optim.Adafactor(parameters, lr=1e-2),
    "RMSprop": lambda parameters: torch.optim.RMSprop(parameters, lr=1e-3, momentum=0.9, centered=True),
}


def step(model, optimizer):
    """A real step; gives what it raises."""
    result = tiny.step(model)
    if result.error is None:
        try:
            optimizer.step()
        except RuntimeError as error:
            return str(error)
        optimizer.zero_grad()
    return result.error


def state_of(optimizer, parameter):
    return {
        key: (value.dtype, value.double().tolist()) if torch.is_tensor(value) else value
        for key, value in optimizer.state[parameter].items()
    }


def values_of(optimizer, parameter):
    return {key: value[1] if isinstance(value, tuple) else value for key, value in state_of(optimizer, parameter).items()}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_step_after_a_fix_and_after_its_undo_goes_on_from_the_same_state(name):
    model = model_with_trainable_norms()
    optimizer = OPTIMIZERS[name](trained(model))
    assert [step(model, optimizer) for _ in range(2)] == [None, None]
    model.eval()
    before, states = tiny.state(model), [state_of(optimizer, parameter) for parameter in trained(model)]
    values = [values_of(optimizer, parameter) for parameter in norms_of(model)]

    report = kbitlint.fix(model)
    assert len([edit for edit in report.applied.edits if edit.kind == "float32-norm"]) == NORMS
    assert {parameter.dtype for parameter in norms_of(model)} == {torch.float32}
    assert [values_of(optimizer, parameter) for parameter in norms_of(model)] == values
    counts = {key: value for key, value in optimizer.state[norms_of(model)[0]].items() if key == "step"}
    assert step(model, optimizer) is None
    assert all(float(optimizer.state[norms_of(model)[0]][key]) == 3 for key in counts)
    kbitlint.undo(model)
    assert step(model, optimizer) is None

    again = model_with_trainable_norms()
    optimizer = OPTIMIZERS[name](trained(again))
    assert [step(again, optimizer) for _ in range(2)] == [None, None]
    kbitlint.fix(again)
    kbitlint.undo(again.eval())
    assert [state_of(optimizer, parameter) for parameter in trained(again)] == states
    assert [tensor[:1] + tensor[2:] for tensor in tiny.state(again)[1].values()] == [
        tensor[:1] + tensor[2:] for tensor in before[1].values()
    ]


def test_a_fixed_model_moves_as_one_whose_optimizer_was_built_with_it():
    model = model_with_trainable_norms()
    optimizer = OPTIMIZERS["AdamW"](trained(model))
    step(model, optimizer)
    twin = copy.deepcopy(model)
    fresh = OPTIMIZERS["AdamW"](trained(twin))
    kbitlint.fix(model)
    kbitlint.fix(twin)
    fresh.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # torch casts the states here itself
    assert (step(model, optimizer), step(twin, fresh)) == (None, None)

    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), twin.parameters(), strict=True))


def test_gradients_that_are_being_accumulated_follow():
    model = model_with_trainable_norms()
    optimizer = OPTIMIZERS["AdamW"](trained(model))
    step(model, optimizer)
    tiny.step(model)
    half = [parameter.grad.clone() for parameter in norms_of(model)]
    kbitlint.fix(model)

    assert [p.grad.dtype for p in norms_of(model)] == [torch.float32] * NORMS
    assert all(torch.equal(p.grad, g.float()) for p, g in zip(norms_of(model), half, strict=True))
    optimizer.step()
    kbitlint.undo(model)
    assert [p.grad.dtype for p in norms_of(model)] == [torch.bfloat16] * NORMS
    optimizer.step()


def test_an_optimizer_built_after_the_fix_makes_its_step_after_the_undo():
    model = model_with_trainable_norms()
    kbitlint.fix(model)
    optimizer = OPTIMIZERS["AdamW"](trained(model))
    assert step(model, optimizer) is None
    kbitlint.undo(model)

    assert step(model, optimizer) is None


def test_a_plan_leaves_the_optimizer_alone():
    model = model_with_trainable_norms()
    optimizer = OPTIMIZERS["AdamW"](trained(model))
    step(model, optimizer)
    held = {id(value) for state in optimizer.state.values() for value in state.values()}
    kbitlint.plan(model)

    assert {id(value) for state in optimizer.state.values() for value in state.values()} == held
    assert step(model, optimizer) is None


def test_a_state_that_cannot_be_cast_refuses_the_fix_in_one_line_and_changes_nothing():
    model = model_with_trainable_norms()
    optimizer = torch.optim.LBFGS(norms_of(model), lr=1e-3, max_iter=1)

    def closure():
        optimizer.zero_grad()
        assert tiny.step(model).error is None
        return torch.tensor(1.0)

    optimizer.step(closure)
    model.eval()
    before = tiny.state(model)

    with pytest.raises(KbitlintError) as refused:
        kbitlint.fix(model)
    assert str(refused.value) == (
        "model.layers.0.input_layernorm: LBFGS keeps 'old_dirs' of all its parameters together, which has one dtype; "
        "nothing was changed: fix the model before the optimizer is built"
    )
    assert tiny.state(model) == before
    optimizer.step(closure)


def test_an_optimizer_of_copies_refuses_the_fix():
    model = model_with_trainable_norms()
    masters = torch.optim.AdamW([parameter.detach().float().requires_grad_() for parameter in trained(model)])
    before = tiny.state(model)

    with pytest.raises(KbitlintError, match="AdamW holds none of the model's parameters but shards or copies of them"):
        kbitlint.fix(model, optimizer=masters)
    assert tiny.state(model) == before


def test_what_is_no_optimizer_and_one_for_a_folder_are_refused():
    with pytest.raises(KbitlintError, match="optimizer: a int has no param_groups and no state, so it is no optimizer"):
        kbitlint.fix(torch.nn.Linear(2, 2), optimizer=3)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    with pytest.raises(KbitlintError, match="is loaded for the fix"):
        kbitlint.fix(tiny.checkpoint(), optimizer=optimizer, device="cpu")


def test_bitsandbytes_and_wrapped_optimizers_go_on():
    import accelerate
    import bitsandbytes

    for make in (bitsandbytes.optim.AdamW8bit, bitsandbytes.optim.AdamW32bit, torch.optim.AdamW):
        model = model_with_trainable_norms()
        optimizer = accelerate.Accelerator(cpu=True).prepare(make(trained(model), lr=1e-3))
        assert step(model, optimizer) is None
        kbitlint.fix(model, optimizer=optimizer)
        assert step(model, optimizer) is None
        kbitlint.undo(model)
        assert step(model, optimizer) is None


def test_a_trainers_own_optimizer_goes_on(tmp_path):
    model = model_with_trainable_norms()
    arguments = transformers.TrainingArguments(str(tmp_path), max_steps=2, report_to=[], use_cpu=True, save_strategy="no")
    data = [{"input_ids": list(range(8)), "labels": list(range(8))}] * 4
    trainer = transformers.Trainer(model=model, args=arguments, train_dataset=data)
    trainer.train()
    assert all(trainer.optimizer.state[parameter]["exp_avg"].dtype is torch.bfloat16 for parameter in norms_of(model))
    kbitlint.fix(trainer)

    assert all(trainer.optimizer.state[parameter]["exp_avg"].dtype is torch.float32 for parameter in norms_of(model))
    assert step(model, trainer.optimizer) is None


def test_nothing_is_looked_for_where_no_trained_parameter_changes(monkeypatch):
    model = tiny.with_lora(tiny.load())
    monkeypatch.setattr(gc, "get_objects", lambda: pytest.fail("a fix of frozen norms looked for optimizers"))
    report = kbitlint.fix(model)

    assert "float32-norm" in {edit.kind for edit in report.applied.edits}
