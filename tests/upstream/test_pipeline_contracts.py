"""What diffusers and Lightning refuse, and the components of diffusers' pipelines against its installed source."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest
from script_cases import findings

from kbitlint.upstream.contracts.diffusers import _pipelines

IMPORTS = """\
import torch
from diffusers import BitsAndBytesConfig, DiffusionPipeline, FluxPipeline, StableDiffusionXLPipeline
from diffusers.quantizers import PipelineQuantizationConfig
from lightning.pytorch import Trainer
from lightning.pytorch.plugins import BitsandbytesPrecision
"""
NF4 = "quant_backend='bitsandbytes_4bit', quant_kwargs={'load_in_4bit': True}"


def told(script):
    return [(severity, message.partition(": ")[0]) for severity, _, message in findings("KB535", script, imports=IMPORTS)]


def load(config, pipeline="FluxPipeline"):
    return f"pipe = {pipeline}.from_pretrained('org/base', quantization_config={config}, torch_dtype=torch.bfloat16)\n"


@pytest.mark.parametrize("pipeline", ["FluxPipeline", "DiffusionPipeline"])
def test_a_pipeline_takes_no_config_of_one_model(pipeline):
    assert told(load("BitsAndBytesConfig(load_in_4bit=True)", pipeline)) == [("error", "from_pretrained raises a ValueError")]


@pytest.mark.parametrize(
    ("given", "pipeline", "name"),
    [
        (f"{NF4}, components_to_quantize=['unet', 'vae']", "FluxPipeline", "components_to_quantize"),
        (f"{NF4}, components_to_quantize='transformer'", "StableDiffusionXLPipeline", "components_to_quantize"),
        ("quant_mapping={'unet': BitsAndBytesConfig(load_in_4bit=True)}", "FluxPipeline", "quant_mapping"),
    ],
)
def test_a_component_that_the_pipeline_does_not_have_is_ignored(given, pipeline, name):
    assert told(load(f"PipelineQuantizationConfig({given})", pipeline)) == [
        ("warning", f"from_pretrained ignores quantization_config.{name}")
    ]


@pytest.mark.parametrize(
    "script",
    [
        load(f"PipelineQuantizationConfig({NF4}, components_to_quantize=['transformer', 'text_encoder_2'])"),
        load(f"PipelineQuantizationConfig({NF4}, components_to_quantize=['unet'])", "StableDiffusionXLPipeline"),
        load(f"PipelineQuantizationConfig({NF4}, components_to_quantize=['unet'])", "DiffusionPipeline"),
        load(f"PipelineQuantizationConfig({NF4})"),
        load("config"),
        "Trainer(precision='bf16-true')\n",
        "Trainer(plugins=BitsandbytesPrecision(mode='nf4', dtype=torch.bfloat16))\n",
        "Trainer(precision='bf16-true', plugins=plugins)\n",
        "BitsandbytesPrecision('int8', torch.float16)\n",
    ],
)
def test_look_alikes(script):
    assert told(script) == []


@pytest.mark.parametrize("plugins", ["BitsandbytesPrecision(mode='nf4')", "[logger, BitsandbytesPrecision('nf4-dq')]"])
def test_lightning_takes_one_precision(plugins):
    assert told(f"Trainer(precision='bf16-true', plugins={plugins})\n") == [("error", "Trainer raises a ValueError")]


def test_lightning_computes_int8_in_float16():
    assert told("BitsandbytesPrecision('int8', torch.bfloat16)\n") == [("error", "BitsandbytesPrecision raises a ValueError")]


@pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="the table is read from diffusers")
def test_the_components_are_those_of_the_installed_pipelines():
    folder = Path(importlib.util.find_spec("diffusers").origin).parent / "pipelines"
    found = {}
    for path in folder.rglob("*.py"):
        for cls in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(cls, ast.ClassDef) and cls.name.endswith("Pipeline"):
                init = next((item for item in cls.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"), None)
                given = init.args.posonlyargs + init.args.args + init.args.kwonlyargs if init is not None else []
                found |= {cls.name: sorted(argument.arg for argument in given[1:])} if len(given) > 1 else {}

    assert {name: list(components) for names, components in _pipelines() for name in names} == found
