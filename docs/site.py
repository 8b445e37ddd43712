"""Hooks of MkDocs: pages that live outside docs/, and the navigation of generated folders.

SECURITY.md and its like stay where readers of the repository look for them. The site shows them as pages, and links to
them from docs/ lead there.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
OUTSIDE = {
    "SECURITY.md": "SECURITY.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "ARCHITECTURE.md": "ARCHITECTURE.md",
    "benchmarks/RESULTS.md": "RESULTS.md",
    ".github/CONTRIBUTING.md": "CONTRIBUTING.md",
}
"""Files of the repository, and the page that shows each."""
_LINK = re.compile(r"\]\(([^()#:\s]+\.md)(#[^()\s]*)?\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill each entry of the navigation that names a folder: `rules/`, `decisions/`."""
    config.nav = [_filled(entry) for entry in config.nav or []]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that live outside docs/."""
    for source, page in OUTSIDE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Point links at the pages that show files from outside docs/."""
    pages = {path: source for source, path in OUTSIDE.items()}
    here = posixpath.dirname(pages.get(page.file.src_uri, posixpath.join("docs", page.file.src_uri)))

    def link(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(here, found[1]))
        shown = OUTSIDE.get(target, target.removeprefix("docs/"))
        return f"]({posixpath.relpath(shown, posixpath.dirname(page.file.src_uri) or '.')}{found[2] or ''})"

    return _LINK.sub(link, markdown)


def _filled(entry: dict[str, object]) -> dict[str, object]:
    """Return an entry of the navigation with a folder's name replaced by its pages, the index first."""
    (title, value), *_ = entry.items()
    if isinstance(value, list):
        return {title: [_filled(child) for child in value]}
    if not str(value).endswith("/"):
        return entry
    pages = sorted((ROOT / "docs" / str(value)).glob("*.md"), key=lambda path: (path.name != "index.md", path.name))
    return {title: [f"{value}{path.name}" for path in pages]}
