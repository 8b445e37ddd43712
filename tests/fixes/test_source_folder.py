"""The fix of a folder of scripts, one of which cannot be fixed."""

from __future__ import annotations

import kbitlint

FIXABLE = """\
from peft import LoraConfig
config = LoraConfig(r=8, eva_config={})
"""
#: ``ast.parse`` accepts a repeated keyword, and ``compile`` does not
BROKEN = FIXABLE + "dict(a=1, a=2)\n"


def test_a_script_that_cannot_be_fixed_leaves_the_others_their_fixes(tmp_path):
    (tmp_path / "broken.py").write_text(BROKEN)
    (tmp_path / "train.py").write_text(FIXABLE)

    report = kbitlint.fix(str(tmp_path))

    assert (tmp_path / "train.py").read_text() == FIXABLE.replace(", eva_config={}", "")
    assert (tmp_path / "broken.py").read_text() == BROKEN
    assert [note for note in report.notes if "broken.py" in note] == [
        "broken.py: does not compile (keyword argument repeated: a, line 3), so it is not fixed; repair that first"
    ]
    assert [(v.at.file, v.code) for v in report.violations] == [("broken.py", "KB535")]
