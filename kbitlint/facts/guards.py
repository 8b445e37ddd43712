"""Code that expects a refusal: a ``try`` around a place, or a choice by version, found in the text."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from kbitlint import lazy_patterns as re

if TYPE_CHECKING:
    from collections.abc import Collection

_TRY = re.compile(r"try[ \t]*:")
_EXCEPT = re.compile(r"except\b([^:\n]*):")
_WORD = re.compile(r"\w+")
#: a name that is neither an attribute, nor the target of an assignment, nor a keyword
_READ = re.compile(r"(?<![\w.])[A-Za-z_]\w*(?!\w)(?![ \t]*=(?!=))")
#: texts of several lines, and comments
PROSE = re.compile(r"(\"\"\"|\'\'\').*?\1|#[^\n]*", re.DOTALL)


#: a callback of the file, and a cast of parameters in place to float32
_CALLBACK = re.compile(r"class \w{1,80}\([\w. ,]{0,80}TrainerCallback\)")
_CASTS = re.compile(r"\.data ?= ?[\w.]{1,60}\.(?:float\(\)|to\((?:dtype ?= ?)?torch\.float(?:32)?\))")


def recasts(text: str) -> bool:
    """Return whether a callback of the file may cast what a trainer cast: the file casts parameters to float32 in place."""
    return _CALLBACK.search(text) is not None and _CASTS.search(text) is not None


@functools.cache
def _choice() -> re.Pattern[str]:
    """Return the pattern of comparisons of versions, and of questions for the parameters of a function."""
    return re.compile(
        r"(?<!torch\.)__version__[^\n]{0,40}(?:[<>]|[!=]=|startswith|split)|version\.parse\(|\bparse_version\(|\bVersion\(|\bsignature\("
        r"|metadata\.version\(|__dataclass_fields__|\bis_\w{1,40}_(?:version|greater|available)\w{0,40}\([\"']|compare_versions?\("
        r"|[<>]=?[ \t]*version\.|\b_?version_?info\b|\bis_(?:transformers|trl|peft)_\w{1,40}\("
    )


#: lines about the version of Python, torch or a kernel library: they say nothing of transformers, PEFT and TRL
_OTHER_VERSION = re.compile(
    r"^[^\n]{0,200}\b(?:torch|sys|platform|np|numpy|bnb|bitsandbytes|xformers|flash_attn|triton)\.(?:__version__|version)[^\n]*$",
    re.MULTILINE,
)


@functools.cache
def _text_given() -> re.Pattern[str]:
    """Return the pattern of ``name="text"``: a statement, or before a comma or bracket a default of a signature."""
    return re.compile(
        r"(?:^[ \t]*|def \w{1,60}\([^()\n]{0,200}?)(?P<name>[A-Za-z_]\w{0,60})[ \t]{0,20}(?::[ \t]?\w{1,20}[ \t]?)?=[ \t]{0,20}"
        r"[\"'][^\"'\n]{0,200}[\"'][ \t]{0,8}(?P<end>[,)])?",
        re.MULTILINE,
    )


def chooses_by_version(text: str) -> bool:
    """Return whether a file compares versions of libraries, or reads a function's parameters, in its code.

    Versions of torch and of Python do not count: they choose no arguments of transformers, PEFT and TRL.
    """
    if _choice().search(text) is None:
        return False
    return _choice().search(_OTHER_VERSION.sub("", PROSE.sub("", text))) is not None


def imports_package(text: str, package: str) -> bool:
    """Return whether a file imports a package anywhere, also inside of a function."""
    starts = tuple(f"{word} {package}{end}" for word in ("from", "import") for end in (" ", ".", "\n", ","))
    return package in text and any(f"{line.strip()}\n".startswith(starts) for line in text.split("\n"))


def has_unsloth(text: str) -> bool:
    """Return whether unsloth takes part in a file: it changes the constructors of TRL for the whole process."""
    return imports_package(text, "unsloth") or "FastLanguageModel" in text


def is_read(text: str, name: str) -> bool:
    """Return whether the code of a file reads a name, or all local names at once."""
    read = set(_READ.findall(PROSE.sub("", text)))
    return name in read or "locals" in read


def is_default(text: str, code: str) -> bool:
    """Return whether an expression is a parameter of a function, to which the file itself gives a text only as its default."""
    if not code.isidentifier():
        return False
    given = [match for match in _text_given().finditer(text) if match["name"] == code]
    return bool(given) and all(match["end"] for match in given)


def is_guarded(text: str, offset: int, errors: Collection[str]) -> bool:
    """Return whether a ``try`` around a place catches one of these exceptions by name.

    Args:
        text: The source text.
        offset: A place in it.
        errors: The names of the exceptions.
    """
    lines = text.split("\n")
    here = text.count("\n", 0, offset)
    left = _indent(lines[here])
    for number in range(here - 1, -1, -1):
        line = lines[number]
        if not left or not line.strip() or _indent(line) >= left:
            continue
        left = _indent(line)
        if _TRY.match(line, left) and any(_catches(lines, here, left, error) for error in errors):
            return True
    return False


def _catches(lines: list[str], start: int, left: int, error: str) -> bool:
    for line in lines[start + 1 :]:
        if not line.strip() or _indent(line) > left:
            continue
        handler = _EXCEPT.match(line, left) if _indent(line) == left else None
        if handler is None:
            return False
        if error in _WORD.findall(handler[1]):
            return True
    return False


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
