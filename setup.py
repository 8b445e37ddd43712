"""The long description of the package: README.md with the links of its repository written out, as PyPI shows it."""

import re
import runpy
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent
VERSION = runpy.run_path(str(HERE / "kbitlint" / "version.py"))["VERSION"]
#: of pictures the file itself, of every other link the page that shows it, both as they were when this version was released
PLACES = {True: "https://raw.githubusercontent.com/kbitlint/kbitlint", False: "https://github.com/kbitlint/kbitlint/blob"}
LINK = re.compile(r"(\]\(|(?:src|href)=\")(?!https?:|mailto:|#)([^)\s\"]+)")


def absolute(found: "re.Match[str]") -> str:
    """Return a link of the repository as one that holds everywhere."""
    place = PLACES[found[2].endswith((".svg", ".png", ".gif", ".jpg", ".webp"))]
    return f"{found[1]}{place}/v{VERSION}/{found[2]}"


if __name__ == "__main__":
    text = (HERE / "README.md").read_text(encoding="utf-8")
    setup(long_description=LINK.sub(absolute, text), long_description_content_type="text/markdown")
