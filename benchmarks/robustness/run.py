"""Robustness benchmark: how many bad files, programs, disks and interruptions the command line survives.

    python -m benchmarks.robustness.run [--quick] [--only NAME ...] [--json FILE] [--kills N] [--executions N]

A table of tried and lost cases ends the run. A case is lost if it damages a file, runs forbidden code, hangs, prints a
traceback, or exits with a code other than 0, 1 and 2. One lost case makes the exit code 1. The benchmark needs Linux. As
root it mounts small file systems for the full and the read-only disk; otherwise it prints the substitute that it uses.
``benchmarks.robustness.fuzz`` runs parsers for longer. ``benchmarks.truth.undo`` stops the fix of every class.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
import warnings
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))  # the factories import tiny from there
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [sys.path[0], os.environ.get("PYTHONPATH", "")]))

from benchmarks.goals import Goal, leave
from benchmarks.robustness.trials import Tally, preload

FAMILIES = ("llama", "mixtral (MoE)", "gemma3 (1 + weight)", "t5 (encoder-decoder)")


def parsers(tally, options):
    """Mutations of files, by parser."""
    from benchmarks.robustness import fuzz

    state = {}
    for name in fuzz.PARSERS:
        for _ in fuzz.fuzz(name, options.executions or (300 if options.quick else 20_000), state, options.findings):
            pass
        record = state[name]
        tally.tried += record["executions"]
        tally.lost += [f"{name}: see {options.findings}"] * record["findings"]
        tally.slowest = max(tally.slowest, record["slowest"])
    tally.notes.append(", ".join(f"{name} {record['executions']}" for name, record in state.items()))


def kills(tally, options):
    """SIGKILL during every kind of write."""
    from benchmarks.robustness import interrupted_writes

    interrupted_writes.kills(tally, options.kills or (6 if options.quick else 200))


def faults(tally, options):
    """Each call of each write refuses in turn."""
    from benchmarks.robustness import interrupted_writes

    interrupted_writes.faults(tally, 1 if options.quick else 6)


def edits(tally, options):
    """A fix of a model, stopped at each edit."""
    from benchmarks.robustness import interrupted_writes

    interrupted_writes.edits(tally, FAMILIES[:1] if options.quick else FAMILIES)


def disk(tally, _):
    """A full disk."""
    from benchmarks.robustness import interrupted_writes

    interrupted_writes.full_disk(tally)


def locked(tally, _):
    """A read-only folder."""
    from benchmarks.robustness import interrupted_writes

    interrupted_writes.read_only(tally)


def code(tally, options):
    """Checkpoints that try to run code or to reach files elsewhere."""
    from benchmarks.robustness import malicious_inputs

    malicious_inputs.code(tally, quick=options.quick)


def configs(tally, options):
    """Configs of adapters and models that ask for files, connections, processes and code."""
    from benchmarks.robustness import configs as hostile_configs

    hostile_configs.configs(tally, quick=options.quick)


def inputs(tally, options):
    """Files that are no files, loops, depths and lengths."""
    from benchmarks.robustness import malicious_inputs

    malicious_inputs.inputs(tally, quick=options.quick)


def names(tally, options):
    """Control characters in every kind of name."""
    from benchmarks.robustness import terminal_output

    terminal_output.names(tally, quick=options.quick)


def many(tally, options):
    """10,000 violations in one report, in every format."""
    from benchmarks.robustness import terminal_output

    terminal_output.many(tally, quick=options.quick)


def factories(tally, options):
    """Factories that fork, print, exit, recurse, hang, die and eat memory."""
    from benchmarks.robustness import misbehaving_factories

    misbehaving_factories.factories(tally, quick=options.quick)


def fixes(tally, options):
    """Fixes of scripts and notebooks in every shape: they compile, are done, and change nothing else."""
    from benchmarks.robustness import fix_variants

    fix_variants.fixes(tally, quick=options.quick)


def oddities(tally, options):
    """Odd live models, audited in three gradient modes and trained."""
    from benchmarks.robustness import odd_models as models

    models.live(tally, quick=options.quick)


def paths(tally, options):
    """Canaries on sys.path: modules in the working folder and the target's."""
    from benchmarks.robustness import reach

    reach.paths(tally, quick=options.quick)


def stops(tally, options):
    """Sweeps and --jobs that are stopped: processes and pipes that are left."""
    from benchmarks.robustness import reach

    reach.stops(tally, 12 if options.quick else 200)


def exits(tally, options):
    """Exit codes by fault: outputs, names, memory, exceptions, Ctrl-C."""
    from benchmarks.robustness import reach

    reach.exits(tally, quick=options.quick)


def growth(tally, options):
    """Files of every shape, by time and memory against their size."""
    from benchmarks.robustness.growth import grow_apart

    grow_apart(tally, quick=options.quick)


#: name -> section, whose docstring is its title in the table and in the goals
SECTIONS = {
    function.__name__: function
    for function in (
        *(parsers, kills, faults, edits, disk, locked, code, configs, inputs),
        *(names, many, fixes, factories, oddities, paths, stops, exits, growth),
    )
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a minute or two: fewer kills and mutations")
    parser.add_argument("--only", action="append", choices=SECTIONS, help="only this section")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--kills", type=int, metavar="N", help="for each kind of write (200; quick: 6)")
    parser.add_argument("--executions", type=int, metavar="N", help="for each parser (20,000; quick: 300)")
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"), help="where what breaks a parser is written")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    # a shell starts a background run with Ctrl-C ignored, which kbitlint would inherit and rightly obey
    signal.signal(signal.SIGINT, signal.default_int_handler)
    preload()
    tallies = []
    start = time.perf_counter()
    for name in options.only or SECTIONS:
        began = time.perf_counter()
        tally = Tally(name, SECTIONS[name].__doc__.strip().rstrip("."))
        SECTIONS[name](tally, options)
        tallies.append((tally, time.perf_counter() - began))
        print(f"{name}: {tally.tried} tried, {len(tally.lost)} lost, {tallies[-1][1]:.0f} s", flush=True)
        for note in tally.notes:
            print(f"    {note}", flush=True)
    print(f"\n{'':<11}{'tried':>9}{'survived':>10}{'lost':>6}{'slowest':>10}   what")
    for tally, _ in tallies:
        record = tally.record()
        slowest = f"{record['slowest']:.1f} s" if record["slowest"] else ""
        print(f"{tally.name:<11}{tally.tried:>9,}{record['survived']:>10,}{len(tally.lost):>6}{slowest:>10}   {tally.what}")
    lost = sum(len(tally.lost) for tally, _ in tallies)
    tried = sum(tally.tried for tally, _ in tallies)
    print(f"{'all':<11}{tried:>9,}{tried - lost:>10,}{lost:>6}{'':>10}   in {time.perf_counter() - start:.0f} s")
    goals = [Goal(f"{tally.what}: lost", len(tally.lost), 0, "", of=tally.tried) for tally, _ in tallies]
    sections = [{**tally.record(), "seconds": round(took, 1)} for tally, took in tallies]
    return leave(goals, options.json, quick=options.quick, sections=sections)


if __name__ == "__main__":
    sys.exit(main())
