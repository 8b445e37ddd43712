"""Under a real torchrun, every rank leaves by itself after the report is out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPTS = Path("tests/data/scripts").resolve()


def test_no_rank_is_ended_by_the_exit_of_another(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "kbitlint", "check"]
    target = SCRIPTS / "adapters_thrown_away.py"

    ran = subprocess.run([*command, str(target), "--format", "json"], cwd=tmp_path, capture_output=True, text=True, check=False)

    report = json.loads(ran.stdout)
    assert [one["severity"] for one in report["targets"][0]["violations"]].count("error") >= 1
    assert ran.returncode == 1
    assert "SIGTERM" not in ran.stderr
    assert ran.stderr.count("exitcode  :") == 1  # of the rank that reports
