"""Configs that leave the target modules to PEFT, which knows them for some model types only: PEFT 0.21."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kbitlint.upstream.contracts.model_types import ADAPTION_PROMPT, DEFAULT_TARGETS, config_class
from kbitlint.upstream.contracts.rows import Contract

if TYPE_CHECKING:
    from collections.abc import Iterator


def target_rows(*callees: str) -> Iterator[Contract]:
    """Yield the rows of functions that attach adapters: the argument ``peft_config`` holds the config."""
    for methods, types in DEFAULT_TARGETS.items():
        yield Contract(
            callees,
            f"kind(peft_config) in {tuple(map(config_class, methods))!r} and peft_config.target_modules is None"
            f" and peft_config.target_parameters is None and model.type not in {types!r}",
            "Please specify `target_modules`",
        )
    yield Contract(  # tuners/adaption_prompt/config.py, prepare_config
        callees,
        f"made(peft_config, 'AdaptionPromptConfig') and model.type not in {ADAPTION_PROMPT!r}",
        "Unsupported model type for adaption prompt: ''",
    )
