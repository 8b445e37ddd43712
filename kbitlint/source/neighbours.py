"""Scripts beside a script that have trained the adapters which it loads."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kbitlint.runtime import content
from kbitlint.source.line_ends import unified
from kbitlint.source.python import SourceError, collect

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from kbitlint.facts.source import SourceFacts

#: Number of files that are searched beside a script, and of bytes in each.
_MAX_FILES = 24
_MAX_BYTES = 64_000
_RESIZES = "resize_token_embeddings("
_TEXT = re.compile(r"[\"']([\w./-]{3,})[\"']")


def neighbours(path: Path, text: str, versions: Mapping[str, str]) -> Iterator[SourceFacts]:
    """Yield the facts of each script beside one that loads adapters, which resizes embeddings and names the same folder.

    Args:
        path: The script that loads them, without a resize of its own.
        text: Its text.
        versions: The versions of the libraries.
    """
    if _RESIZES in text:
        return
    named = set(_TEXT.findall(text))
    try:
        files = [one for one in content.files_like(path.parent, "*.py") if one.name != path.name][:_MAX_FILES]
    except (OSError, ValueError):
        return
    for one in files:
        try:
            data = content.read(one, _MAX_BYTES)
            other = unified(data.decode("utf-8"))
            trains = _RESIZES in other and "save_" in other and len(named & set(_TEXT.findall(other))) > 1
            if trains:  # the folder, and the base that both load
                yield collect(one.name, other, versions)
        except (OSError, ValueError, SourceError):
            continue
