"""The packages of ``kbitlint[model]``: imported when they are needed, missed in one clear line."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
from typing import TYPE_CHECKING, Any

from kbitlint.errors import MissingExtraError
from kbitlint.runtime.confinement import lifted

if TYPE_CHECKING:
    from types import ModuleType


def require(package: str, purpose: str) -> ModuleType:
    """Import a package of the extra. Raises MissingExtraError where it is not installed."""
    if importlib.util.find_spec(package) is None:
        raise MissingExtraError(package, purpose)
    with lifted():  # a package that kbitlint asks for, and no config
        return importlib.import_module(package)


def require_model_extra(purpose: str) -> None:
    """Make sure that torch and transformers are installed, without importing them."""
    for package in ("torch", "transformers", "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, purpose)


def load_bitsandbytes(purpose: str) -> ModuleType:
    """Import bitsandbytes without torch's compiler.

    bitsandbytes 0.50 decorates two kernels with ``torch.compile``, and decorating alone imports inductor: 1.7 of its
    1.8 seconds. The functions are compiled at their first call instead, so nothing else changes.
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
    log = logging.getLogger("bitsandbytes")
    level = log.level
    log.setLevel(logging.ERROR)  # it warns of a faster CPU kernel that it misses, which changes no verdict
    try:
        return require("bitsandbytes", purpose)
    finally:
        torch.compile = compile_now
        log.setLevel(level)
