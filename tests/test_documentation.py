"""The documents tell what the program does: examples are run, generated pages are current, and every link leads somewhere."""

import importlib.util
import re
from pathlib import Path

import pytest

from kbitlint.output import formats

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(
    path
    for path in (
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / ".github").glob("*.md"),
        *ROOT.glob("benchmarks/*.md"),
    )
    if path.parent != ROOT / "docs" / "rules" or path.name == "index.md"
)
LINK = re.compile(r"\]\(([^()\s]+)\)")


def named(path):
    return str(path.relative_to(ROOT))


def rule_pages():
    spec = importlib.util.spec_from_file_location("rule_pages", ROOT / "docs" / "rule_pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def code_blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def headings(path):
    """The anchors of a page, as GitHub and the site make them."""
    lines = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


def dead_links(path):
    dead = []
    for link in LINK.findall(path.read_text(encoding="utf-8")):
        if link.startswith(("http:", "https:")):
            continue
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        if not target.exists() or (anchor and anchor not in headings(target)):
            dead.append(link)
    return dead


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_every_link_leads_somewhere(path):
    assert dead_links(path) == []


def test_the_rule_pages_are_those_of_make_docs():
    folder = ROOT / "docs" / "rules"
    written = {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}

    wanted = rule_pages().pages()
    stale = sorted(name for name in written.keys() | wanted.keys() if written.get(name) != wanted.get(name))
    assert not stale, f"run `make docs`: it writes docs/rules/ again, where {', '.join(stale)} differ"


def test_the_readme_is_one_page():
    text = (ROOT / "README.md").read_text(encoding="utf-8")

    assert len(text.splitlines()) <= 150
    assert len(text.encode()) <= 10_000


def test_usage_lists_every_format():
    written = (ROOT / "docs" / "usage.md").read_text(encoding="utf-8")

    assert [name for name in formats.NAMES if f"| `{name}` | " not in rule_pages().usage()] == []
    assert written == rule_pages().usage(), "docs/usage.md, Reports: python docs/rule_pages.py writes the table of formats"


def test_the_changelog_of_a_version_fits_a_screen():
    versions = re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]

    assert versions
    assert all(len(version.splitlines()) <= 45 for version in versions)


def test_the_script_of_the_readme_has_the_faults_of_its_picture(run, tmp_path, monkeypatch):
    """The picture is the terminal output of this run; its letters lie in <text> elements, line by line.

    A rule more or less redraws no picture: the count of rules that ran is left out.
    """
    monkeypatch.chdir(tmp_path)
    script, *_ = code_blocks((ROOT / "README.md").read_text(encoding="utf-8"), "python")
    (tmp_path / "train.py").write_text(script)
    picture = (ROOT / "docs" / "images" / "report.svg").read_text(encoding="utf-8")

    result = run("rehearse", "--select", "KB202,KB9", "train.py")

    assert result.exit_code == 1
    shown = letters(picture).removeprefix("$kbitlintrehearse--selectKB202,KB9train.py")
    assert without_count("".join(result.output.split())) == without_count(shown), "docs/images/report.svg shows another report"


def without_count(letters):
    return re.sub(r"\d+rulesran", "rulesran", letters)


def letters(svg):
    rows = re.findall(r'<text class="[^"]*-r\d+" x="([\d.]+)" y="([\d.]+)"[^>]*>([^<]*)</text>', svg)
    ordered = sorted((float(y), float(x), text) for x, y, text in rows)
    text = "".join(text for _, _, text in ordered)
    return re.sub(r"&#160;|\s", "", text).replace("&lt;", "<").replace("&gt;", ">").replace("&#x27;", "'").replace("&amp;", "&")


def test_the_diff_of_the_readme_is_that_of_the_fix(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (tmp_path / "train.py").write_text(code_blocks(text, "python")[0])
    (diff,) = code_blocks(text, "diff")

    result = run("check", "--diff", "train.py")

    assert diff in result.output
