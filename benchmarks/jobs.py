"""How much faster ``--jobs 2`` is than ``--jobs 1`` over 40 tiny checkpoints. Prints a table, writes JSON."""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
TARGETS, GOAL, ROUNDS = 40, 1.6, 3


def main():
    import shutil

    import tiny

    from kbitlint.jobs import audit_many
    from kbitlint.violation import Report

    source = tiny.checkpoint()
    with tempfile.TemporaryDirectory() as folder:
        targets = []
        for number in range(TARGETS):
            place = Path(folder) / str(number)
            shutil.copytree(source, place)
            targets.append(str(place))
        audit_many(targets[:1], {"quantize": "nf4"})  # the server imports torch once, whatever the number of jobs
        seconds = {1: [], 2: []}
        for _ in range(ROUNDS):
            for jobs, measured in seconds.items():
                start = time.perf_counter()
                results = audit_many(targets, {"quantize": "nf4"}, jobs=jobs)
                measured.append(time.perf_counter() - start)
                if not all(isinstance(result, Report) for result in results):
                    raise SystemExit(f"a target failed: {results}")
    ratios = [one / two for one, two in zip(seconds[1], seconds[2], strict=True)]
    result = {"targets": TARGETS, "seconds": seconds, "ratio": statistics.median(ratios), "goal": GOAL}
    print(f"{'jobs':<8}{'seconds (median)':>18}")
    for jobs, measured in seconds.items():
        print(f"{jobs:<8}{statistics.median(measured):>18.2f}")
    print(f"--jobs 2 is {result['ratio']:.2f} times as fast; the goal is {GOAL}")
    out = Path(__file__).parent / "results"
    out.mkdir(exist_ok=True)
    (out / "jobs.json").write_text(json.dumps(result, indent=1) + "\n")
    return int(result["ratio"] < GOAL)


if __name__ == "__main__":
    sys.exit(main())
