"""Write docs/rules/: one page a rule, from its docstring, and the index; and the table of formats. `make docs` runs this."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kbitlint import rule_docs
from kbitlint.output import formats
from kbitlint.registry import all_rules

if TYPE_CHECKING:
    from kbitlint.rule import Rule

FOLDER = Path(__file__).parent / "rules"
USAGE = Path(__file__).parent / "usage.md"
_FORMATS_HEAD = "| `--output-format` | for |\n|---|---|\n"
_GROUPS = {
    "KB1": "Precision",
    "KB2": "Trainability",
    "KB3": "Gradient flow",
    "KB4": "Checkpointing",
    "KB5": "Quantization",
    "KB6": "Adapters",
    "KB7": "Devices and ranks",
    "KB8": "Checkpoint files",
    "KB9": "Rehearsals, and kbitlint itself",
}
_HEAD = """# Rules

**error**: training fails, or silently trains nothing or the wrong thing. **warning**: training is unstable, or wastes a
large share of memory or time. **info**: worth knowing. The number of a rule says nothing about its severity, and a
severity follows the evidence: a missing hook is an error if it cuts the gradient, and no violation if it makes no
difference.
"""


def pages() -> dict[str, str]:
    """Return the text of every page, by file name."""
    return {"index.md": _index()} | {f"{rule.meta.code}.md": _page(rule) for rule in all_rules()}


def _page(rule: Rule) -> str:
    """Return a rule's document with its code first in the title, as the navigation sorts by it."""
    _, _, body = rule_docs.explain(rule).partition("\n")
    return f"# {rule.meta.code} {rule.meta.slug}\n{body}"


def _index() -> str:
    """Return the page that lists all rules, a table for each group of codes."""
    parts = [_HEAD]
    for prefix, title in _GROUPS.items():
        rows = [
            f"| [{meta.code}<br>{meta.slug}]({meta.code}.md) | {meta.severity.value} | {title} |"
            for meta, title in ((rule.meta, type(rule).title()) for rule in all_rules())
            if meta.code.startswith(prefix)
        ]
        parts.append("\n".join([f"## {title}\n", "| rule | severity | reports |", "|---|---|---|", *rows, ""]))
    return "\n".join(parts)


def usage() -> str:
    """Return the page of usage with the table of formats that ``kbitlint.output.formats`` has."""
    before, head, rest = USAGE.read_text(encoding="utf-8").partition(_FORMATS_HEAD)
    table = "".join(f"| `{row.name}` | {row.purpose} |\n" for row in formats.FORMATS)
    return f"{before}{head}{table}\n{rest.partition(chr(10) * 2)[2]}"


def main() -> None:
    """Write the pages and the table, and remove those of rules that are gone."""
    FOLDER.mkdir(exist_ok=True)
    wanted = pages()
    for path in FOLDER.glob("*.md"):
        if path.name not in wanted:
            path.unlink()
    for name, text in wanted.items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    USAGE.write_text(usage(), encoding="utf-8")


if __name__ == "__main__":
    main()
