"""The callback for ms-swift, by its registry: a plugin file registers it, and ``--callbacks kbitlint`` uses it.

# kbitlint_plugin.py, passed as --external_plugins kbitlint_plugin.py --callbacks kbitlint
from kbitlint.integrations.swift import register
register(watch=3)
"""

from __future__ import annotations

from typing import Any

from kbitlint.integrations.trainer import KbitlintCallback

NAME = "kbitlint"
"""The name of the callback on the command line of swift."""


def register(**settings: Any) -> None:
    """Register the callback with ms-swift, which passes its arguments and its trainer to every callback.

    Args:
        **settings: As for ``KbitlintCallback``.

    Raises:
        KbitlintError: A setting is wrong.
    """
    from swift.callbacks import callbacks_map  # its import takes seconds, and only its plugin file asks for it

    KbitlintCallback(**settings)  # a wrong setting is named before the model is loaded

    def made(args: Any, trainer: Any) -> KbitlintCallback:  # noqa: ARG001  # the callback finds both itself
        return KbitlintCallback(**settings)

    callbacks_map[NAME] = made
