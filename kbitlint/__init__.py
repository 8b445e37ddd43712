"""Audit quantized models before fine-tuning, fix them, and prove the fix with a training step."""

import sys

# `python -m kbitlint` prepends the working folder to `sys.path`. A module there would replace any module that is
# imported below, `__future__` and `typing` included. So the folder is removed before the first import.
if sys.argv[:1] == ["-m"] and sys.orig_argv[-len(sys.argv)].removeprefix("-m") == "kbitlint":
    _safe = sys.flags.isolated or getattr(sys.flags, "safe_path", False)  # -I and -P do not add it; -P is new in Python 3.11
    del sys.path[: 0 if _safe else 1]

TYPE_CHECKING = False

from kbitlint.version import VERSION  # noqa: E402  # after sys.path is safe

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
    "fit",
    "fix",
    "load_prepared",
    "memory",
    "plan",
    "prepare",
    "rehearse",
    "undo",
]

if TYPE_CHECKING:
    from kbitlint.api import assert_ready, check, fix, plan, undo
    from kbitlint.context import TrainingContext
    from kbitlint.errors import KbitlintError
    from kbitlint.fixes.prepared import load_prepared, prepare
    from kbitlint.rehearsal.any_target import fit, memory
    from kbitlint.rehearsal.run import rehearse
    from kbitlint.report import Report
    from kbitlint.violation import Severity, Violation

_HOMES = {
    "KbitlintError": "kbitlint.errors",
    "Report": "kbitlint.report",
    "rehearse": "kbitlint.rehearsal.run",
    "Severity": "kbitlint.violation",
    "TrainingContext": "kbitlint.context",
    "Violation": "kbitlint.violation",
    "load_prepared": "kbitlint.fixes.prepared",
    "prepare": "kbitlint.fixes.prepared",
    "fit": "kbitlint.rehearsal.any_target",
    "memory": "kbitlint.rehearsal.any_target",
} | dict.fromkeys(("assert_ready", "check", "fix", "plan", "undo"), "kbitlint.api")


def __getattr__(name: str) -> object:
    """Import public names at their first use, so that ``import kbitlint`` is cheap."""
    if name not in _HOMES:
        raise AttributeError(f"module 'kbitlint' has no attribute {name!r}")
    import importlib  # import kbitlint must cost nothing

    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> "list[str]":
    return sorted(__all__)
