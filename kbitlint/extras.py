"""Packages of the extra ``kbitlint[model]``, imported on demand."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from kbitlint.errors import MissingExtraError
from kbitlint.runtime.confinement import lifted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType


def require(package: str, purpose: str, extra: str = "model") -> ModuleType:
    """Import a package of an extra and return it.

    Args:
        package: The package.
        purpose: What needs it, for the message.
        extra: The extra of kbitlint that installs it.

    Raises:
        MissingExtraError: If it is not installed.
    """
    if importlib.util.find_spec(package) is None:
        raise MissingExtraError(package, purpose, extra)
    with lifted():  # kbitlint asks for this package, not the config that is being built
        return importlib.import_module(package)


def require_model_extra(purpose: str) -> None:
    """Check that torch, transformers and accelerate are installed, without importing them.

    Raises:
        MissingExtraError: If one of them is missing.
    """
    for package in ("torch", "transformers", "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, purpose)


def load_bitsandbytes(purpose: str) -> ModuleType:
    """Import bitsandbytes without torch's compiler, and return it.

    bitsandbytes 0.50 decorates two kernels with ``torch.compile``. The decoration alone imports inductor, which
    takes 1.7 of 1.8 seconds. Here the functions are compiled at their first call instead, so nothing else changes.

    Raises:
        MissingExtraError: If torch or bitsandbytes is not installed.
    """
    if "bitsandbytes" in sys.modules:
        return sys.modules["bitsandbytes"]
    torch: Any = require("torch", purpose)
    compile_now = torch.compile

    def compile_at_first_call(model: Any = None, **options: Any) -> Any:
        if model is None:
            return lambda function: compile_at_first_call(function, **options)
        compiled: list[Any] = []

        def call(*args: Any, **kwargs: Any) -> Any:
            if not compiled:
                compiled.append(compile_now(model, **options))
            return compiled[0](*args, **kwargs)

        return call

    torch.compile = compile_at_first_call
    try:
        with quiet_import():
            return require("bitsandbytes", purpose)
    finally:
        torch.compile = compile_now


@contextmanager
def quiet_import() -> Iterator[None]:
    """Import bitsandbytes inside the ``with`` statement without its warning of a missing CPU kernel, which no verdict needs."""
    import logging  # an audit of files needs none

    log = logging.getLogger("bitsandbytes")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def load_peft(purpose: str) -> ModuleType:
    """Import PEFT, and bitsandbytes before it: PEFT imports it too, slowly and with its warnings.

    Raises:
        MissingExtraError: If PEFT is not installed.
    """
    if "peft" not in sys.modules and all(map(importlib.util.find_spec, ("peft", "bitsandbytes"))):
        load_bitsandbytes(purpose)
    return require("peft", purpose)
