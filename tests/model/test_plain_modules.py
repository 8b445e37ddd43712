"""Modules of no library, with quantized layers, adapters and a loop of the user's own: the traced step is the real one."""

from __future__ import annotations

import functools
import inspect
import re

import bitsandbytes as bnb
import plain
import pytest
import torch
import transformers
import unseen
import unusual
from diffusion import quantized
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from torch import nn

import kbitlint
from kbitlint.context import TrainingContext
from kbitlint.model.batch import loss_of, training_batch
from kbitlint.model.inputs.entries import changed
from kbitlint.model.inputs.media import float_dtype
from kbitlint.model.inputs.plan import DOCUMENTED
from kbitlint.model.layers.checkpointing import supports_checkpointing
from kbitlint.model.layers.norms import is_norm
from kbitlint.model.probe import probe
from kbitlint.model.trace.fitting import plan_for
from kbitlint.model.trace.trace import trace

CONTEXT = TrainingContext(autocast_dtype="float32")


def module(kind):
    torch.manual_seed(0)
    model = quantized(kind().to(torch.bfloat16), leave=("router", "v_head", "lm_head"))
    model.requires_grad_(requires_grad=False)
    return model


def adapted(model):
    targets = [path for path, layer in model.named_modules() if isinstance(layer, bnb.nn.Linear4bit)]
    return get_peft_model(model, LoraConfig(r=4, init_lora_weights=False, target_modules=targets))


def cast_norms(model):
    for layer in model.modules():
        if is_norm(layer):
            layer.float()


def prepared_by_peft(model):
    prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)


def fixed(model):
    assert kbitlint.fix(model).crashes == ()


def step(model):
    """Return the parameters that a real step reaches, or the error that it raises."""
    model.train()
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    if hasattr(inner, "example"):
        batch = changed(inner.example(), lambda one: one.to(float_dtype(inner)) if one.is_floating_point() else one)
    else:
        batch = training_batch(model, "cpu", plan=plan_for(model, "cpu") or DOCUMENTED)
    try:
        loss_of(model(**batch)).backward()
    except RuntimeError as error:
        return str(error)
    return sorted(name for name, parameter in model.named_parameters() if parameter.grad is not None)


def below_wrappers(paths):
    """Return paths without the names of wrappers. Those of facts begin at the transformers model, if there is one."""
    return sorted(re.sub(r"(base_model\.model|auto_model|pretrained_model|policy)\.", "", path) for path in paths)


@pytest.mark.parametrize("prepare", [lambda _: None, prepared_by_peft, cast_norms, fixed], ids=["none", "peft", "norms", "fix"])
@pytest.mark.parametrize("kind", [*plain.KINDS, *unusual.KINDS, *unseen.KINDS], ids=lambda kind: kind.__name__)
def test_the_traced_step_of_a_plain_module_is_the_real_one(kind, prepare):
    model = module(kind)
    prepare(model)
    model = adapted(model)

    traced = trace(model, CONTEXT)
    report = kbitlint.check(model, context=CONTEXT)
    real = step(model)

    errors = [violation for violation in report.violations if violation.severity.value == "error"]
    assert report.crashes == ()
    if isinstance(real, str):
        assert prepare in (prepared_by_peft, cast_norms), real
        assert traced.refusals
        assert errors
    else:
        assert below_wrappers(gradient.path for gradient in traced.gradients if gradient.arrives) == below_wrappers(real)
        assert (traced.refusals, traced.failure, errors) == ((), None, [])


def test_adapters_by_hand_under_any_name_are_traced_and_left_alone():
    model = module(unseen.AdaptersByHand)
    for factors in (model.down, model.up):
        factors.requires_grad_(requires_grad=True)
    wanted = ["down.0", "down.2", "up.0", "up.2"]

    report = kbitlint.fix(model)
    traced = trace(model, CONTEXT)

    assert [violation for violation in report.violations if violation.severity.value == "error"] == []
    assert sorted(gradient.path for gradient in traced.gradients if gradient.arrives) == wanted
    assert step(model) == wanted


def test_a_backbone_under_no_grad_is_an_error_if_no_adapter_learns():
    model = module(plain.FrozenBackbone)
    targets = [path for path, layer in model.backbone.named_modules() if isinstance(layer, bnb.nn.Linear4bit)]
    model = get_peft_model(model, LoraConfig(r=4, target_modules=[f"backbone.{path}" for path in targets]))
    model.base_model.model.head.requires_grad_(requires_grad=False)

    report = kbitlint.check(model, context=CONTEXT)

    assert "does not require grad" in step(model)
    assert report.crashes == ()
    assert {violation.severity.value for violation in report.violations if violation.code in ("KB301", "KB303")} == {"error"}


@pytest.mark.parametrize("kind", [plain.MLP, plain.Language], ids=lambda kind: kind.__name__)
def test_the_memory_of_a_plain_module_has_activations(kind):
    assert "activations" in str(kbitlint.memory(adapted(module(kind))))


def test_a_module_of_which_no_layer_tells_an_input_is_skipped_with_a_reason():
    class Opaque(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(3))

        def forward(self, scene):
            return self.weight * scene.meshes

    report = kbitlint.check(nn.ModuleDict({"inner": Opaque(), "packed": module(plain.MLP)}), context=CONTEXT)

    assert report.crashes == ()
    assert any("without weights" in skip.reason for skip in report.skips)


def remembered(function):
    """Decorate a method as transformers' ``compile_compatible_method_lru_cache`` does."""
    cached = functools.lru_cache(maxsize=1)(function)

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return cached(*args, **kwargs)

    return wrapper


class Positions(nn.Module):
    """It keeps its positions in a cache behind a decorator, which its copy shares."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(48, 48), nn.Linear(48, 8)

    @staticmethod
    @remembered
    def positions(length, dtype):
        return torch.ones(length, dtype=dtype).cumsum(0).unsqueeze(-1)

    def forward(self, x):
        return self.last(self.first(x) + self.positions(x.shape[-2], x.dtype))


@pytest.mark.parametrize("warm", [False, True])
def test_a_traced_step_leaves_nothing_in_a_cache_behind_a_decorator(warm):
    model = adapted(module(Positions)).train()
    if warm:
        step(model)

    trace(model, CONTEXT)

    assert Positions.positions(16, torch.bfloat16).device.type == "cpu"
    assert not isinstance(step(model), str)


class Tabled(nn.Module):
    """It needs an optional input that nothing describes, after a norm."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(48, 48), nn.LayerNorm(48), nn.Linear(48, 8)

    def forward(self, x, table=None):
        return self.last(self.norm(self.first(x)).to(self.norm.weight.dtype)) + table.values


def test_a_dtype_that_a_step_refuses_is_a_fact_although_its_batch_does_not_fit():
    model = module(Tabled)
    model.norm.float()
    model.last = nn.Linear(48, 8, dtype=torch.bfloat16)
    model = get_peft_model(model, LoraConfig(r=4, target_modules=["first"]))

    traced = trace(model, CONTEXT)

    assert [(refusal.path, refusal.dtypes) for refusal in traced.refusals] == [("last", ("bfloat16", "float32", "bfloat16"))]
    assert step(model).startswith("mat1 and mat2 must have the same dtype")


@pytest.mark.parametrize("kind", [plain.Flattening, plain.TwoTowers], ids=lambda kind: kind.__name__)
def test_a_probe_runs_on_the_batch_that_a_trace_corrects(kind):
    model = adapted(module(kind))

    found = probe(model)

    assert (found.failure, found.stepped) == (None, True)


def scripted(part):
    return torch.jit.script(nn.Sequential(part, nn.GELU()))


def by_example(part):
    return torch.jit.trace(part, torch.zeros(2, 96, dtype=torch.bfloat16))


@torch.jit.script
def widened(x):
    return x + x * x


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize("made", [scripted, by_example, lambda part: nn.Sequential(part, Held(widened))])
def test_parts_of_torchscript_run_without_weights_as_with_them(made):
    model = module(plain.MLP)
    model.norm = made(model.norm)
    model = adapted(model)
    for parameter in model.base_model.model.norm.parameters():
        parameter.requires_grad = True

    traced, report, real = trace(model, CONTEXT), kbitlint.check(model, context=CONTEXT), step(model)

    assert below_wrappers(gradient.path for gradient in traced.gradients if gradient.arrives) == below_wrappers(real)
    assert (traced.failure, report.crashes) == (None, ())
    assert [violation for violation in report.violations if violation.severity.value == "error"] == []
    assert [skip.reason for skip in report.skips if "looked at" in skip.reason or "without weights" in skip.reason] == []
    assert "activations" in str(kbitlint.memory(model))


class Held(nn.Module):
    """It holds a scripted function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_dtype_that_a_program_of_torchscript_refuses_is_named_and_no_hook_is_put_on_it():
    model = module(plain.MLP)
    model.norm = torch.jit.script(nn.Linear(96, 96))
    model = adapted(model)

    errors = [violation for violation in kbitlint.fix(model).violations if violation.severity.value == "error"]

    assert {(violation.code, violation.at.path) for violation in errors} == {("KB102", "norm")}
    assert "TorchScript" in step(model)


class OldForm(transformers.LlamaForCausalLM):
    """Remote code that overrides how checkpointing is enabled, as transformers called it before version 5."""

    def _set_gradient_checkpointing(self, enable=True, gradient_checkpointing_func=None):  # noqa: ARG002, FBT002  # the old signature
        self.model.gradient_checkpointing = enable


def test_remote_code_whose_checkpointing_cannot_be_enabled_is_fixed_without_it():
    model = OldForm(plain.small_llama().config).to(torch.bfloat16)
    model = quantized(model, leave=("lm_head",)).requires_grad_(requires_grad=False)
    takes = "every_n_layers" not in inspect.signature(transformers.PreTrainedModel._set_gradient_checkpointing).parameters

    report = kbitlint.fix(model)

    assert report.crashes == ()
    assert supports_checkpointing(model) is takes
    assert not isinstance(step(adapted(model)), str)
