"""Inputs of modules that document nothing: the traced step takes the form that the code gives them, or the user's own batch."""

from __future__ import annotations

import bitsandbytes as bnb
import pytest
import torch
import undocumented
from diffusion import quantized
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

import kbitlint
from kbitlint.context import TrainingContext
from kbitlint.errors import KbitlintError
from kbitlint.model.batch import loss_of
from kbitlint.model.trace.trace import trace

CONTEXT = TrainingContext(autocast_dtype="float32")


IN_FLOAT32, DETACHED = "the head in float32", "the head's output detached"


def adapted(kind, change=""):
    torch.manual_seed(0)
    model = quantized(kind().to(torch.bfloat16), leave=("head",) if change == IN_FLOAT32 else ())
    model.requires_grad_(requires_grad=False)
    if change == IN_FLOAT32:
        model.head.float()
    targets = [path for path, layer in model.named_modules() if isinstance(layer, bnb.nn.Linear4bit)]
    inject_adapter_in_model(LoraConfig(r=4, init_lora_weights=False, target_modules=targets), model)
    if change == DETACHED:
        model.head.register_forward_hook(lambda module, given, output: output.detach())
    return model


def real(model):
    """Return the parameters that a real step on the user's batch reaches, or the error that it raises."""
    try:
        loss_of(model.train()(*model.example())).backward()
    except RuntimeError as error:
        return str(error)
    return sorted(name for name, parameter in model.named_parameters() if parameter.grad is not None)


def errors(model, **options):
    report = kbitlint.check(model, context=CONTEXT, **options)
    assert report.crashes == ()
    assert [skip.reason for skip in report.skips if skip.surface.value == "trace" and not skip.code] == []
    return sorted({violation.code for violation in report.violations if violation.severity.value == "error"})


def reached(model):
    return sorted(gradient.path for gradient in trace(model, CONTEXT).gradients if gradient.arrives)


@pytest.mark.parametrize("kind", undocumented.KINDS, ids=lambda kind: kind.__name__)
def test_the_code_of_a_forward_gives_its_inputs_their_form(kind):
    model = adapted(kind)

    assert errors(model) == []
    assert reached(model) == real(model)


@pytest.mark.parametrize(
    ("kind", "change", "code"),
    [
        (undocumented.TupleBatch, DETACHED, "KB303"),
        (undocumented.TupleBatch, IN_FLOAT32, "KB102"),
        (undocumented.MessagePassing, DETACHED, "KB303"),
        (undocumented.ImagesOfAnySize, IN_FLOAT32, "KB102"),
    ],
)
def test_what_fails_on_the_users_batch_is_an_error_on_the_made_one(kind, change, code):
    model = adapted(kind, change)

    assert isinstance(real(model), str)
    assert errors(model) == [code]


def test_the_step_of_a_lightning_module_is_the_one_that_trains():
    model = adapted(undocumented.OwnStep)
    model.training_step((torch.randn(2, 1, 8, 8, dtype=torch.bfloat16), None), 0).backward()

    assert reached(model) == sorted(name for name, parameter in model.named_parameters() if parameter.grad is not None)
    assert errors(model) == []


class Opaque(nn.Module):
    """A module that looks into a file of the user's own kind."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Linear(16, 16), nn.Linear(16, 2)

    def forward(self, record):
        return self.head(self.layer(record.decode("features", 16)))


class Record:
    def __init__(self, features):
        self.features = features

    def decode(self, name, width):
        return getattr(self, name)[..., :width]


def test_a_batch_of_the_users_own_takes_the_place_of_a_made_one():
    model, batch = adapted(Opaque), Record(torch.randn(2, 20, dtype=torch.bfloat16))

    (reason,) = [s.reason for s in kbitlint.check(model, context=CONTEXT).skips if s.surface.value == "trace" and not s.code]
    assert "no library documents what Opaque takes; pass a batch of yours: kbitlint.check(model, inputs=...)" in reason
    assert errors(model, inputs=batch) == []
    assert errors(adapted(Opaque, DETACHED), inputs=(batch,)) == ["KB303"]
    assert errors(adapted(Opaque, IN_FLOAT32), inputs={"record": batch}) == ["KB102"]


def test_a_step_of_the_users_own_computes_the_loss():
    def step(model, inputs):
        score, value = model(*inputs)
        return (score if "value" not in losses else score.detach()).mean() + value.float().mean()

    model = adapted(undocumented.ActorAndCritic)
    losses = ()
    assert errors(model, inputs=model.example(), step=step) == []
    losses = ("value",)
    assert errors(model, inputs=model.example(), step=step) == ["KB303"]
    with pytest.raises(KbitlintError, match="is no function of a model and its inputs"):
        kbitlint.check(model, step="loss")
