"""Odd live models: each is audited in three gradient modes and takes a real step, which must confirm the verdict."""

from __future__ import annotations

import contextlib
import io
import os
import random
import threading
import time
import warnings

import torch
from torch import nn

from tests.support import tiny

MODES = {"gradients": contextlib.nullcontext, "no_grad": torch.no_grad, "inference_mode": torch.inference_mode}
#: attributes of a model or a layer that an audit reads
_READ = (
    "is_loaded_in_4bit",
    "is_loaded_in_8bit",
    "hf_device_map",
    "hf_quantizer",
    "quantization_method",
    "active_adapters",
    "main_input_name",
    "supports_gradient_checkpointing",
    "base_model_prefix",
    "gradient_checkpointing",
    "_keep_in_fp32_modules",
    "_require_grads_hooks",
    "get_input_embeddings",
    "get_output_embeddings",
    "peft_config",
    "adapter_layer_names",
    "merged_adapters",
    "weight",
    "quant_state",
    "_hf_hook",
    "in_features",
    "compute_dtype",
)
_OF_CONFIGS = ("model_type", "quantization_config", "dtype", "use_cache", "sub_configs")


def adapted():
    return tiny.with_lora(tiny.load())


def layers_of(model):
    return tiny.adapters_base(model).model.layers


def _with_class(owner, **members):
    """Replace an object's class with a subclass that has these members."""
    owner.__class__ = type(type(owner).__name__, (type(owner),), members)


def _raising(error):
    def read(_):
        raise error("odd")

    return property(read, lambda *_: None)


def _properties():
    """Yield (name, maker) of models with one property that raises: on the model, a layer or the config."""
    for name in _READ:
        for place in ("model", "layer"):
            error = (RuntimeError, KeyError, ZeroDivisionError, RecursionError)[len(name) % 4]
            yield f"{place}.{name} raises", lambda name=name, place=place, error=error: _odd_property(name, place, error)
    for name in _OF_CONFIGS:
        yield f"config.{name} raises", lambda name=name: _odd_property(name, "config", OSError)


def _odd_property(name, place, error):
    model = adapted()
    base = tiny.adapters_base(model)
    owner = {"model": base, "layer": base.model.layers[0], "config": base.config}[place]
    _with_class(owner, **{name: _raising(error)})
    return model


def _values():
    """Yield (name, maker) of models with one attribute of a type that no library sets."""
    for name in ("hf_device_map", "quantization_method", "hf_quantizer", "peft_config", "_keep_in_fp32_modules"):
        for value in (object(), nn.Linear):
            yield f"model.{name} = {value!r:.20}", lambda name=name, value=value: _odd_value(name, value)


def _odd_value(name, value):
    model = adapted()
    _with_class(tiny.adapters_base(model), **{name: value})
    return model


ODD = {}


def odd(make):
    ODD[make.__name__.strip("_").replace("_", " ")] = make
    return make


def _with_child(child):
    model = adapted()
    tiny.adapters_base(model).child = child
    return model


def _with_attribute(value):
    model = adapted()
    layers_of(model)[0].odd = value
    return model


def _with_buffer(value):
    model = adapted()
    tiny.adapters_base(model).register_buffer("odd", value)
    return model


class _Wrapper(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = adapted()

    def forward(self, **inputs):
        return self._modules["inner"](**inputs)


def _deep(levels):
    module = nn.Identity()
    for _ in range(levels):
        module = nn.Sequential(module)
    return module


ODD |= {
    "a scripted child": lambda: _with_child(torch.jit.script(nn.Sequential(nn.Linear(4, 4)))),
    "a traced child": lambda: _with_child(torch.jit.trace(nn.Linear(4, 4), torch.ones(1, 4))),
    "a lazy child": lambda: _with_child(nn.LazyLinear(4)),
    "a lazy norm": lambda: _with_child(nn.LazyBatchNorm1d()),
    "a graph module": lambda: _with_child(torch.fx.symbolic_trace(nn.Sequential(nn.Linear(4, 4)))),
    "a lock": lambda: _with_attribute(threading.Lock()),
    "a generator": lambda: _with_attribute(number for number in range(3)),
    "a generator of random numbers": lambda: _with_attribute(torch.Generator()),
    "an open file": lambda: _with_attribute(io.BytesIO(b"x")),
    "a thread": lambda: _with_attribute(threading.Thread()),
    "a module of Python": lambda: _with_attribute(os),
    "a tensor of another's graph": lambda: _with_attribute(torch.ones(2, requires_grad=True) * 2),
    "a nested tensor": lambda: _with_attribute(torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])),
    "a sparse parameter": lambda: _with_child(nn.ParameterList([nn.Parameter(torch.eye(4).to_sparse(), requires_grad=False)])),
    "a complex parameter": lambda: _with_child(
        nn.ParameterList([nn.Parameter(torch.ones(2, dtype=torch.complex64), requires_grad=False)])
    ),
    "an empty parameter": lambda: _with_child(nn.ParameterList([nn.Parameter(torch.empty(0), requires_grad=False)])),
    "a module of its own": nn.Module,
    "a buffer of bytes": lambda: _with_buffer(torch.zeros(3, dtype=torch.uint8)),
    "a buffer of booleans": lambda: _with_buffer(torch.ones(3, dtype=torch.bool)),
    "a buffer that requires grad": lambda: _with_buffer(torch.ones(3, requires_grad=True)),
    "a buffer on meta": lambda: _with_buffer(torch.ones(3, device="meta")),
    "a data parallel model": lambda: nn.DataParallel(adapted()),
    "a scripted model": lambda: torch.jit.script(nn.Sequential(nn.Linear(4, 4))),
    "a deep child": lambda: _with_child(_deep(900)),
}


@odd
def a_cycle():
    model = adapted()
    layers_of(model)[0].add_module("up", tiny.adapters_base(model).model)
    return model


@odd
def a_parent_in_its_child():
    model = adapted()
    layers_of(model)[0].__dict__["parent"] = model
    return model


@odd
def one_layer_twice():
    model = adapted()
    layers_of(model)[1] = layers_of(model)[0]
    return model


@odd
def getattr_raises():
    class Raises(_Wrapper):
        def __getattr__(self, name):
            if name in ("_modules", "_parameters", "_buffers"):
                return super().__getattr__(name)
            raise RuntimeError(name)

    return Raises()


@odd
def getattr_always_answers():
    class Answers(_Wrapper):
        def __getattr__(self, name):
            try:
                return super().__getattr__(name)
            except AttributeError:
                return Answers

    return Answers()


@odd
def another_class():
    class Pretends(_Wrapper):
        __class__ = property(lambda _: dict)

    return Pretends()


@odd
def no_copies():
    class Uncopied(_Wrapper):
        def __deepcopy__(self, memo):
            raise TypeError("no copies")

    return Uncopied()


@odd
def no_text():
    class Silent(_Wrapper):
        def __repr__(self):
            raise ValueError("no text")

        __str__ = __repr__

    return Silent()


@odd
def equal_to_nothing():
    class Unequal(nn.Identity):
        __hash__ = nn.Module.__hash__

        def __eq__(self, other):
            raise TypeError("no comparison")

    return _with_child(Unequal())


@odd
def a_hook_that_raises():
    model = adapted()
    layers_of(model)[0].register_forward_hook(lambda *_: 1 / 0)
    return model


@odd
def a_hook_that_counts():
    model = adapted()
    counted = []
    layers_of(model)[0].register_forward_hook(lambda *_: counted.append(1))
    return model


@odd
def names():
    model = adapted()
    for name in ("é ü", "\u202egnp", "a\nb", "<script>", "\x1b]0;x\x07", "", "x" * 3000):
        tiny.adapters_base(model)._modules[name] = nn.Identity()  # noqa: SLF001  # add_module refuses some
    return model


@odd
def nothing_registered():
    model = adapted()
    model.register_module("nothing", None)
    model.register_buffer("none", None)
    model.register_parameter("neither", None)
    return model


@odd
def weight_norm():
    model = adapted()
    torch.nn.utils.parametrizations.weight_norm(tiny.adapters_base(model).lm_head)
    return model


@odd
def a_compiled_layer():
    model = adapted()
    layers_of(model)[0] = torch.compile(layers_of(model)[0], backend="eager")
    return model


@odd
def a_lost_quantization_state():
    model = adapted()
    layer = layers_of(model)[0].mlp.up_proj.base_layer
    layer.weight.quant_state = layer.quant_state = None
    return model


@odd
def built_under_inference_mode():
    with torch.inference_mode():
        return adapted()


@odd
def a_head_created_under_inference_mode():
    model = adapted()
    head = tiny.adapters_base(model).lm_head
    with torch.inference_mode():
        head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    return model


@odd
def a_subclass_of_parameters():
    class Marked(torch.Tensor):
        pass

    model = adapted()
    norm = tiny.adapters_base(model).model.norm
    norm.weight = nn.Parameter(norm.weight.detach().as_subclass(Marked), requires_grad=False)
    return model


ODD |= dict(_properties()) | dict(_values())


def real(model):
    """Return the error of the first real step, optimizer included, or None if the model trains."""
    try:
        model.train()
        tokens = torch.randint(1, 200, (1, 8))
        model(input_ids=tokens, labels=tokens).loss.backward()
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if not any(parameter.grad is not None for parameter in trained):
            return "no gradient"
        torch.optim.SGD(trained, lr=0.0).step()
    except Exception as error:  # noqa: BLE001  # the error is the result
        return f"{type(error).__name__}: {error}"[:120]
    return None


def seen(model):
    """Return the state that an audit must not change."""
    modules = list(nn.Module.modules(model))
    own = [table for module in modules for table in (module._parameters, module._buffers)]  # noqa: SLF001  # named_parameters runs code
    hooks = [(list(m._forward_hooks), list(m._forward_pre_hooks)) for m in modules]  # noqa: SLF001  # torch has no public way to list hooks
    with torch._C.DisableTorchFunctionSubclass():  # noqa: SLF001  # lazy parameters raise on most attributes
        tensors = [
            (id(t), t.requires_grad, t.dtype, t.grad is None, 0 if t.is_inference() else t._version)  # noqa: SLF001  # as autograd compares
            for table in own
            for _, t in table.items()
            if t is not None
        ]
    return (
        tensors,
        [(id(module), module.training, sorted(map(str, module.__dict__))) for module in modules],
        hooks,
        (torch.get_rng_state().tolist(), random.getstate(), torch.get_default_dtype()),
        (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
    )


def audited(model, mode):
    """Audit a model in one mode; return (verdicts, reasons of skips, problem or None)."""
    import kbitlint
    from kbitlint.context import TrainingContext

    with MODES[mode]():
        before = seen(model)
        try:
            report = kbitlint.check(model, context=TrainingContext(autocast_dtype="float32"))
            found = tuple((v.code, v.severity.value, v.at.path, v.message) for v in report.violations)
            unseen = tuple(skip.reason for skip in report.skips if not skip.code)
            problem = f"a rule raised {report.crashes[0].error}" if report.crashes else None
        except kbitlint.KbitlintError as error:
            found, unseen = (), (str(error),)
            problem = "an error of several lines" if "\n" in str(error) else None
        except BaseException as error:  # noqa: BLE001  # no other exception may leave an audit
            found, unseen, problem = (), (), f"raised {type(error).__name__}: {error}"
        changed = "it changed something" if seen(model) != before else None
    return found, unseen, problem or changed


def live(tally, *, quick):
    """Audit every odd model in every mode, and compare with its real step."""
    warnings.simplefilter("ignore")
    chosen = list(ODD.items())[:: 5 if quick else 1]
    refused = 0
    for name, make in chosen:
        model = make()
        results = {}
        for mode in MODES:
            began = time.perf_counter()
            results[mode] = audited(model, mode)
            tally.slowest = max(tally.slowest, time.perf_counter() - began)
        end = real(model)
        for mode, (found, unseen, problem) in results.items():
            errors = [verdict[0] for verdict in found if verdict[1] == "error"]
            false = f"{errors} although it trains" if errors and end is None else None
            missed = f"clean although the step raises {end}" if end and not (errors or unseen) else None
            differs = "differs from the first mode" if (found, unseen) != results["gradients"][:2] else None
            tally.case(f"{name}, {mode}", problem, false, missed, differs)
            refused += bool(unseen)
    tally.notes.append(f"{len(chosen)} models, {len(MODES)} modes; {refused} audits name something that they could not look at")
