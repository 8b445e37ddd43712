"""What diffusers refuses or ignores: diffusers 0.42, ``pipeline_utils.py`` and ``quantizers/pipe_quant_config.py``.

``pipelines.tsv`` holds the components of each pipeline: the parameters of its ``__init__``.
"""

from __future__ import annotations

from pathlib import Path

from kbitlint.upstream.contracts.rows import Contract

_LOADERS = ("diffusers.*Pipeline.from_pretrained", "diffusers.AutoPipeline*.from_pretrained")
_CONFIG = ("diffusers.PipelineQuantizationConfig",)


def _pipelines() -> tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]:
    """Return (pipelines, their components) pairs."""
    text = Path(__file__).parent.with_name("pipelines.tsv").read_text(encoding="utf-8")
    lines = (line.split("\t") for line in text.splitlines() if line and not line.startswith("#"))
    return tuple((tuple(names.split()), tuple(components.split())) for names, components in lines)


def _components() -> tuple[Contract, ...]:
    """Return a row for each list of components: a config for a component that no pipeline of the list has is not used."""
    return tuple(
        Contract(
            tuple(f"diffusers.{name}.from_pretrained" for name in names),
            f"beyond(quantization_config.{key}, {', '.join(map(repr, components))})",
            f"the pipeline has no such component, but {', '.join(_modules(components))}",
            "",
            f"quantization_config.{key}",
            example=f"quantization_config=PipelineQuantizationConfig({key}=['net'])",
        )
        for names, components in _pipelines()
        for key in ("components_to_quantize", "quant_mapping")
    )


def _modules(components: tuple[str, ...]) -> list[str]:
    """Return the components that have weights to quantize: the denoisers and encoders."""
    return [name for name in components if "transformer" in name or "unet" in name or "encoder" in name or "prior" in name]


ROWS: tuple[Contract, ...] = (
    Contract(
        _LOADERS,
        "quantization_config is not None and not made(quantization_config, 'PipelineQuantizationConfig')",
        "`quantization_config` must be an instance of `PipelineQuantizationConfig`",
        drops="quantization_config",
        example="quantization_config=BitsAndBytesConfig(load_in_4bit=True)",
        since="0.34",
    ),
    Contract(
        _CONFIG,
        "quant_backend is not None and quant_mapping is not None",
        "Both `quant_backend` and `quant_mapping` cannot be specified at the same time",
        example="quant_backend='bitsandbytes_4bit', quant_mapping={'unet': None}",
    ),
    Contract(
        _CONFIG,
        "quant_backend is None and quant_mapping is None",
        "Must provide a `quant_backend` when not providing a `quant_mapping`",
        example="quant_kwargs={'load_in_4bit': True}",
        unset=True,
    ),
    Contract(
        _CONFIG,
        "quant_backend is not None and quant_kwargs is None",
        "Both `quant_kwargs` and `quant_mapping` cannot be None",
        example="quant_backend='bitsandbytes_4bit'",
    ),
    *_components(),
)
