"""The table of quantization methods, row by row, against the quantizers of the installed transformers."""

from __future__ import annotations

import importlib.metadata
import inspect
import itertools
import re
from types import SimpleNamespace

import peft.tuners.lora.model
import pytest
import transformers

from kbitlint.upstream.quantization import METHODS, QUANTIZATION_CONFIGS, method_named

auto = pytest.importorskip("transformers.quantizers.auto")
pytestmark = pytest.mark.skipif(
    int(transformers.__version__.split(".")[0]) < 5, reason="the table describes the quantizers of transformers 5"
)

NAMES = sorted(auto.AUTO_QUANTIZER_MAPPING)


def method_of(name):
    """Return the row of a name of the registry, which has two for bitsandbytes."""
    return method_named("bitsandbytes" if name.startswith("bitsandbytes_") else name)


def is_trainable(name, layout="Int8WeightOnlyConfig", **arguments):
    """Return what the quantizer of a name answers to Trainer for some arguments of its config."""
    quantizer = object.__new__(auto.AUTO_QUANTIZER_MAPPING[name])
    quantizer.use_fp8_kernel = arguments.get("use_optimized_inference", False)
    names = [pair[0] for method in METHODS for pair in method.trains_with]
    values = {**dict.fromkeys(names), "quant_type": type(layout, (), {})(), **arguments}
    quantizer.quantization_config = SimpleNamespace(**values)
    return bool(quantizer.is_trainable)


@pytest.fixture(autouse=True)
def _packages(monkeypatch):
    """Let two quantizers read the versions of packages that are not installed."""
    known = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "99.0" if name in ("aqlm", "gptqmodel") else known(name))


@pytest.mark.parametrize("name", NAMES)
def test_every_quantizer_has_a_row_with_its_config(name):
    row, config = method_of(name), auto.AUTO_QUANTIZATION_CONFIG_MAPPING[name]

    assert row.name
    assert (row.config or "FineGrainedFP8Config") == config.__name__
    assert QUANTIZATION_CONFIGS[config.__name__] == ("fp8" if name == "mxfp8" else row.name)


@pytest.mark.parametrize("name", NAMES)
def test_a_row_trains_where_its_quantizer_says_so(name):
    row = method_of(name)

    for chosen in itertools.product((False, True), repeat=len(row.trains_with)):
        values = {key: value if held else None for (key, value), held in zip(row.trains_with, chosen, strict=True)}
        assert is_trainable(name, **values) is (row.trains and all(chosen))
    if row.fails_with is not None:
        assert is_trainable(name, **dict([row.fails_with])) is False


@pytest.mark.parametrize(("layout", "trains"), [("Int4WeightOnlyConfig", False), ("Float8WeightOnlyConfig", True)])
def test_the_layout_decides_for_torchao(layout, trains):
    assert is_trainable("torchao", layout) is trains


def test_rows_beyond_the_registry_are_methods_that_transformers_skips():
    beyond = {row.name for row in METHODS} - {method_of(name).name for name in NAMES}

    assert beyond >= {"exl2", "exl3", "modelopt"}
    assert not any(auto.AutoHfQuantizer.supports_quant_method({"quant_method": name}) for name in beyond)
    assert not any(method_named(name).trains for name in beyond)


#: PEFT's dispatchers of LoRA -> our method. The rest is for layers that no method of transformers makes, and for plain ones.
DISPATCHED = {
    "bnb_4bit": "bitsandbytes",
    "bnb_8bit": "bitsandbytes",
    "inc": "",
    "megatron": "",
    "transformer_engine": "",
    "default": "",
    **{name: name for name in ("eetq", "aqlm", "awq", "gptq", "hqq", "torchao")},
}


def test_each_dispatcher_of_peft_has_a_row_that_trains():
    source = inspect.getsource(peft.tuners.lora.model.LoraModel._create_new_module)
    found = set(re.findall(r"\bdispatch_(\w+)", source))

    assert found == set(DISPATCHED)
    assert [name for name in DISPATCHED.values() if name and not method_named(name).trains] == []
