"""Speed of ``--jobs 2`` against ``--jobs 1`` over 40 tiny checkpoints.

python -m benchmarks.cost.jobs [--json FILE]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.goals import Goal, leave

TARGETS, GOAL, ROUNDS = 40, 1.6, 3


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    import shutil

    from kbitlint.jobs.server import audit_many
    from kbitlint.report import Report
    from tests.support import tiny

    source = tiny.checkpoint()
    with tempfile.TemporaryDirectory() as folder:
        targets = []
        for number in range(TARGETS):
            place = Path(folder) / str(number)
            shutil.copytree(source, place)
            targets.append(str(place))
        # each call starts a server that imports torch, which is part of the time; the first import reads it from disk
        audit_many(targets[:1], {"quantize": "nf4"})
        seconds = {1: [], 2: []}
        for _ in range(ROUNDS):
            for jobs, measured in seconds.items():
                start = time.perf_counter()
                results = audit_many(targets, {"quantize": "nf4"}, jobs=jobs)
                measured.append(time.perf_counter() - start)
                if not all(isinstance(result, Report) for result in results):
                    raise SystemExit(f"a target failed: {results}")
    ratios = [one / two for one, two in zip(seconds[1], seconds[2], strict=True)]
    goal = Goal(f"{TARGETS} tiny checkpoints, --jobs 1 / --jobs 2", statistics.median(ratios), GOAL, at_least=True)
    return leave([goal], options.json, seconds=seconds)


if __name__ == "__main__":
    sys.exit(main())
