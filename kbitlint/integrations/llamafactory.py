"""A training run of LLaMA-Factory with the callback, whose command line takes none.

python -m kbitlint.integrations.llamafactory recipe.yaml
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kbitlint.integrations.trainer import KbitlintCallback

if TYPE_CHECKING:
    from collections.abc import Sequence

WATCHED_STEPS = 3
"""Optimizer steps that the command watches."""


def train(arguments: dict[str, Any] | None = None, callbacks: Sequence[Any] = (), **settings: Any) -> None:
    """Train as ``llamafactory-cli train`` does, with the callback.

    Args:
        arguments: A recipe as a dictionary; None reads the command line, as LLaMA-Factory does.
        callbacks: Further callbacks.
        **settings: As for ``KbitlintCallback``.

    Raises:
        NotReadyError: The audit stops the run.
        KbitlintError: A setting is wrong.
    """
    callback = KbitlintCallback(**settings)
    from llamafactory.train.tuner import run_exp  # takes seconds; a wrong setting is named before

    run_exp(arguments, callbacks=[callback, *callbacks])


if __name__ == "__main__":
    train(watch=WATCHED_STEPS)
