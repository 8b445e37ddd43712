"""Documents of rules: the sections of a rule's docstring, and the text of ``kbitlint explain``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from kbitlint.runtime.docstrings import docstring
from kbitlint.version import HOME, VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kbitlint.rule import Rule

SECTIONS = ("What it does", "Why is this bad?", "Example", "Fix", "Fix safety", "References")


def sections(rule: type[Rule]) -> dict[str, str]:
    """Return the sections of a rule's document by heading, in their order."""
    found: dict[str, str] = {}
    heading = ""
    for line in docstring(rule).splitlines():
        if line.startswith("## "):
            heading = line[3:].strip()
            found[heading] = ""
        elif heading:
            found[heading] += line + "\n"
    return {name: text.strip() for name, text in found.items()}


def summary(rule: Rule) -> str:
    """Return the first paragraph on what a rule does, as plain text in one line; its title if it has none."""
    paragraph = sections(type(rule)).get("What it does", "").partition("\n\n")[0]
    return " ".join(paragraph.split()) or type(rule).title()


def page_of(code: str) -> str:
    """Return the address of the page of a built-in rule, of this version."""
    return f"{HOME}/blob/v{VERSION}/docs/rules/{code}.md"


def explain(rule: Rule) -> str:
    """Return a rule's document as Markdown, with its code and severity in the title."""
    body = docstring(type(rule))
    if rule.options:
        lines = [f"- `{option.name}` ({json.dumps(option.default)}): {option.doc}" for option in rule.options]
        body += "\n\n## Options\n\n" + "\n".join(lines)
    return f"# {rule.meta.slug} ({rule.meta.code})\n\n{rule.meta.severity.value}, since {rule.meta.since}\n\n{body}\n"


def entry(rule: Rule) -> str:
    """Return the two lines of a rule in the list of all: code, slug, severity and surfaces; below them its title."""
    surfaces = ", ".join(surface.value for surface in rule.checks())
    return f"{rule.meta.code}  {rule.meta.slug:<36}{rule.meta.severity.value:<9}{surfaces}\n       {type(rule).title()}"


def as_json(rules: Iterable[Rule]) -> str:
    """Return rules as a JSON list: identity, surfaces, options and document."""
    return json.dumps(
        [
            {
                "code": rule.meta.code,
                "slug": rule.meta.slug,
                "severity": rule.meta.severity.value,
                "consequence": rule.meta.consequence.value,
                "since": rule.meta.since,
                "title": type(rule).title(),
                "surfaces": [surface.value for surface in rule.checks()],
                "options": [{"name": o.name, "default": o.default, "doc": o.doc} for o in rule.options],
                "document": explain(rule),
            }
            for rule in rules
        ],
        indent=2,
    )
