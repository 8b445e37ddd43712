"""Errors about dtypes: those of kernels, and those that a model's own code raises when it compares two dtypes."""

from __future__ import annotations

import linecache
import re
import traceback
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from kbitlint.model.trace.ledger import Ledger

_ABOUT_DTYPES = re.compile(r"dtype|scalar type|same type|without overflow|bias type|can't be cast")
_FLOAT = re.compile(r"\btorch\.(?:b?float(?:16|32)?|half)\b")
_LIBRARIES = re.compile(r"[/\\](kbitlint|torch)[/\\]")


def is_about_dtypes(error: BaseException) -> bool:
    """Return whether an error says that dtypes do not fit. An assertion without a message says so by its line."""
    if isinstance(error, AssertionError) and not str(error):
        return "dtype" in _line_of(error)
    if not isinstance(error, (RuntimeError, ValueError, TypeError, AssertionError)):
        return False
    return bool(_ABOUT_DTYPES.search(str(error))) or len(set(_FLOAT.findall(str(error)))) > 1


def _frames(error: BaseException) -> list[Any]:
    """Return (frame, line) of each frame of an error, outermost first."""
    return list(traceback.walk_tb(error.__traceback__))


def _line_of(error: BaseException) -> str:
    """Return the line of code that raised."""
    found = _frames(error)
    return linecache.getline(found[-1][0].f_code.co_filename, found[-1][1]) if found else ""


def raised_by(error: BaseException, ledger: Ledger) -> str:
    """Return the name of what raised: the function of a model's own code, or the operator that ran last."""
    found = _frames(error)
    code = found[-1][0].f_code if found else None
    if code is None or _LIBRARIES.search(code.co_filename):
        return ledger.last_operator
    return getattr(code, "co_qualname", code.co_name)  # Python 3.10 has no qualified name


def dtypes_in(text: str) -> tuple[torch.dtype, ...]:
    """Return the dtypes that an error message names, in the spelling of C++ or of Python."""
    names = {
        "float": torch.float32,
        "float32": torch.float32,
        "half": torch.float16,
        "float16": torch.float16,
        "bfloat16": torch.bfloat16,
        "byte": torch.uint8,
        "uint8": torch.uint8,
        "char": torch.int8,
    }
    return tuple(dict.fromkeys(names[word] for word in re.findall(r"[a-z]+\d*", text.lower()) if word in names))
