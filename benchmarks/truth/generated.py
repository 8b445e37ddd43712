"""Verdicts on generated training scripts, compared with what the scripts do when they run.

    python -m benchmarks.truth.generated [--programs N] [--seed S] [--out FILE] [--shrink] [--rehearse]
                                          [--again] [--show SEED] [--json FILE]

``benchmarks.truth.programs`` composes each script from a seed. A forked process runs it on a tiny random model, and holds two
verdicts against it: that of the script (source), and that of the finished model or Trainer (model, trace, ranks). With
``--rehearse`` the same scripts are rehearsed. A difference is shrunk to the fewest options that show it. Results that ``--out``
has are not measured again; with ``--again``, the verdicts on their scripts are.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from benchmarks.goals import Goal, leave
from benchmarks.truth.program_runs import AFTER, FAILS, NOT_MADE, NOTHING, TRAINS, as_on_gpu, forked, script_again
from benchmarks.truth.programs import STEPS, Program, drawn, has_faulty_loop, plain, script
from benchmarks.truth.rehearsed import compared, rehearsed


def difference(line: dict[str, Any]) -> str | None:
    """Return in what the verdicts are not what a program does, or None."""
    source, model, real = line["source"], line["model"], line["real"]
    if source is None:
        return "no answer"
    for said in (source, model):
        if said and said["crashes"]:
            return "crash: " + said["crashes"][0].strip().splitlines()[-1]
    if real == TRAINS:
        for name, said in (("script", source), ("model", model)):
            if said and said["errors"]:
                return f"false error on the {name}: {said['errors'][0].split()[0]}"
    if _is_for_model(line) and not model["errors"]:
        return "skipped" if model["untraced"] else f"silent on the model: {real}"
    if _is_wrong(line) and not source["errors"]:
        return f"silent on the script: {real}"
    return None


def _is_for_model(line: dict[str, Any]) -> bool:
    """Return whether a program has a fault that its model shows."""
    return bool(line["real"] in (FAILS, NOTHING) and line["model"] and not has_faulty_loop(line["program"]))


def _is_wrong(line: dict[str, Any]) -> bool:
    return line["real"] in (FAILS, NOTHING, NOT_MADE, AFTER)


def shrunk(line: dict[str, Any]) -> dict[str, Any]:
    """Return the line of the program with the fewest options that are not plain and the same difference."""
    kind = difference(line)
    for step in STEPS:
        if line["program"][step] == plain(step):
            continue
        smaller = forked(line["program"] | {step: plain(step)})
        if smaller["source"] is not None and difference(smaller) == kind:
            line = smaller
    return line


def odd(program: Program) -> dict[str, str]:
    """Return the options of a program that are not plain."""
    return {step: option for step, option in program.items() if option != plain(step)}


def goals(lines: list[dict[str, Any]]) -> list[Goal]:
    """Return the goals on a set of outcomes."""
    known = [line for line in lines if line["source"] is not None]
    trains = [line for line in known if line["real"] == TRAINS]
    broken, wrong = [line for line in known if _is_for_model(line)], [line for line in known if _is_wrong(line)]
    false = [line for line in trains if "false" in (difference(line) or "")]
    told = [line for line in broken if line["model"]["errors"]]
    by_script = [line for line in wrong if line["source"]["errors"]]
    crashes = [line for line in known if "crash" in (difference(line) or "")]
    found = [
        Goal(f"generated programs that train, with an error, of {len(lines):,}", len(false), 0, "", of=len(trains)),
        Goal("generated programs with a crash", len(crashes), 0, "", of=len(lines)),
        Goal("broken programs with an error on the model", len(told) / max(len(broken), 1), 0.97, "%", at_least=True),
        Goal("broken programs with an error on the script", len(by_script) / max(len(wrong), 1), 0.8, "%", at_least=True),
    ]
    played = [line for line in known if line.get("rehearsal")]
    if played:
        same = [line for line in played if compared(line) is None]
        found.append(Goal("rehearsals that end as the real run does", len(same) / len(played), 0.98, "%", at_least=True))
    return found


def _measured(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the outcomes of the seeds; those that the file has not yet are measured, and written there."""
    lines = [json.loads(text) for text in options.out.read_text().splitlines()] if options.out.exists() else []
    done = {line["seed"] for line in lines}
    if options.rehearse:
        as_on_gpu()
    with options.out.open("a") as file:
        for seed in range(options.seed, options.seed + options.programs):
            if seed in done:
                continue
            line = {"seed": seed} | forked(drawn(seed))
            if options.shrink and difference(line) not in (None, "no answer"):
                line["smallest"] = odd(shrunk(line)["program"])
            if options.rehearse and line["source"] is not None:
                line["rehearsal"] = rehearsed(line["program"])
            lines.append(line)
            print(json.dumps(line), file=file, flush=True)
    return lines


def _judged_again(file: Path) -> list[dict[str, Any]]:
    """Return the outcomes of a file, with the verdicts of today on their scripts."""
    lines = [json.loads(text) for text in file.read_text().splitlines()]
    return [line | {"source": script_again(line["program"])} if line["source"] is not None else line for line in lines]


def _print(lines: list[dict[str, Any]]) -> None:
    """Print each difference with the options that are not plain, and how often each kind is."""
    kinds: collections.Counter[str] = collections.Counter()
    for line in lines:
        found = [difference(line), compared(line) if line.get("rehearsal") else None]
        for kind in filter(None, found):
            kinds[kind] += 1
            print(f"  {line['seed']}: {kind} | {line['error'][:160]} | {line.get('smallest', odd(line['program']))}")
    for kind, count in kinds.most_common():
        print(f"{count:6} {kind}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--programs", type=int, default=200, help="how many, each of a seed of its own")
    parser.add_argument("--seed", type=int, default=0, help="the seed of the first")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "generated.jsonl", help="the results file")
    parser.add_argument("--shrink", action="store_true", help="look for a smaller program with the same difference")
    parser.add_argument("--rehearse", action="store_true", help="rehearse each script, too")
    parser.add_argument("--again", action="store_true", help="judge the scripts of the results file again, and run nothing")
    parser.add_argument("--show", type=int, metavar="SEED", help="print the script of this seed and leave")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    if options.show is not None:
        print(script(drawn(options.show)))
        return 0
    started = time.perf_counter()
    lines = _judged_again(options.out) if options.again else _measured(options)
    print(dict(collections.Counter(line["real"] for line in lines)), f"{time.perf_counter() - started:.0f} s")
    _print(lines)
    return leave(goals(lines), options.json)


if __name__ == "__main__":
    sys.exit(main())
