"""Audits a quantized model before you fine-tune it, fixes it, and proves it with a training step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kbitlint.version import VERSION

__version__ = VERSION

__all__ = [
    "KbitlintError",
    "Report",
    "Severity",
    "TrainingContext",
    "Violation",
    "__version__",
    "assert_ready",
    "check",
    "fix",
    "load_prepared",
    "memory",
    "plan",
    "prepare",
    "undo",
]

if TYPE_CHECKING:
    from kbitlint.api import assert_ready, check, fix, load_prepared, memory, plan, prepare, undo
    from kbitlint.context import TrainingContext
    from kbitlint.errors import KbitlintError
    from kbitlint.report import Report
    from kbitlint.violation import Severity, Violation

_HOMES = {
    "KbitlintError": "kbitlint.errors",
    "Report": "kbitlint.report",
    "Severity": "kbitlint.violation",
    "TrainingContext": "kbitlint.context",
    "Violation": "kbitlint.violation",
} | dict.fromkeys(("assert_ready", "check", "fix", "load_prepared", "memory", "plan", "prepare", "undo"), "kbitlint.api")


def __getattr__(name: str) -> Any:
    """Import public names when they are first used: ``import kbitlint`` costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'kbitlint' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
