"""The plugin for axolotl. Its settings are the key ``kbitlint`` of the configuration.

plugins:
  - kbitlint.integrations.axolotl.KbitlintPlugin
kbitlint:
  watch: 3
"""

from __future__ import annotations

from typing import Any

from axolotl.integrations.base import BasePlugin
from pydantic import BaseModel

from kbitlint.errors import KbitlintError
from kbitlint.integrations.trainer import KbitlintCallback


class KbitlintArgs(BaseModel):  # type: ignore[misc]  # pydantic is Any to mypy here
    """The key that the plugin adds to axolotl's configuration: the arguments of ``KbitlintCallback``."""

    kbitlint: dict[str, Any] | None = None


class KbitlintPlugin(BasePlugin):  # type: ignore[misc]  # axolotl is Any to mypy here
    """A plugin that adds the callback to the trainer that axolotl builds."""

    def get_input_args(self) -> str:
        """Return the class whose fields axolotl accepts in its configuration."""
        return "kbitlint.integrations.axolotl.KbitlintArgs"

    def register(self, cfg: dict[str, Any]) -> None:
        """Refuse wrong settings before the model is loaded.

        Raises:
            KbitlintError: The key ``kbitlint`` has a wrong value.
        """
        _callback(cfg)

    def add_callbacks_post_trainer(self, cfg: Any, trainer: Any) -> list[KbitlintCallback]:  # noqa: ARG002  # the callback finds it itself
        """Return the callback; axolotl adds it to its trainer."""
        return [_callback(cfg)]


def _callback(cfg: Any) -> KbitlintCallback:
    settings = cfg.get("kbitlint") or {}
    if not isinstance(settings, dict):
        raise KbitlintError(f"kbitlint: {settings!r} in axolotl's configuration is no mapping of settings, as watch: 3 is")
    try:
        return KbitlintCallback(**settings)
    except TypeError as error:
        raise KbitlintError(f"kbitlint: in axolotl's configuration: {error}") from error
