"""Rule documents: the sections of a docstring, ``kbitlint explain``, and the table in the README.

``python -m kbitlint.docs`` writes the table between its markers in README.md.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from kbitlint.docstrings import docstring
from kbitlint.registry import all_rules

if TYPE_CHECKING:
    from kbitlint.rule import Rule

SECTIONS = ("What it does", "Why is this bad?", "Example", "Fix", "Fix safety", "References")
_BEGIN, _END = "<!-- rules: written by `make docs` -->", "<!-- end of rules -->"


def sections(rule: type[Rule]) -> dict[str, str]:
    """The sections of a rule's document, by heading, in their order."""
    found: dict[str, str] = {}
    heading = ""
    for line in docstring(rule).splitlines():
        if line.startswith("## "):
            heading = line[3:].strip()
            found[heading] = ""
        elif heading:
            found[heading] += line + "\n"
    return {name: text.strip() for name, text in found.items()}


def explain(rule: Rule) -> str:
    """A rule's document as Markdown, with its code and severity as title."""
    body = docstring(type(rule))
    if rule.options:
        lines = [f"- `{option.name}` ({json.dumps(option.default)}): {option.doc}" for option in rule.options]
        body += "\n\n## Options\n\n" + "\n".join(lines)
    return f"# {rule.meta.slug} ({rule.meta.code})\n\n{rule.meta.severity.value}, since {rule.meta.since}\n\n{body}\n"


def table() -> str:
    """All rules as a Markdown table."""
    lines = ["| code | rule | severity | what it reports |", "|---|---|---|---|"]
    lines += [
        f"| {rule.meta.code} | {rule.meta.slug} | {rule.meta.severity.value} | {type(rule).title()} |" for rule in all_rules()
    ]
    return "\n".join(lines)


def with_table(readme: str) -> str:
    """README text with the table between its markers."""
    head, found, rest = readme.partition(_BEGIN)
    _, closed, tail = rest.partition(_END)
    if not found or not closed:
        raise ValueError(f"README.md lacks the markers {_BEGIN} and {_END}")
    return f"{head}{_BEGIN}\n{table()}\n{_END}{tail}"


if __name__ == "__main__":
    path = Path("README.md")
    path.write_text(with_table(path.read_text(encoding="utf-8")), encoding="utf-8")
