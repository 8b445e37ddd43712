"""Ends of hand-written training scripts: each runs for real on tiny random models, and is rehearsed.

    python -m benchmarks.truth.script_ends FOLDER [--out FILE] [--only NAME...] [--fragments] [--path FOLDER] [--json FILE]

``FOLDER`` holds scripts and notebooks, beside the files that they read. The first line of a script may name its arguments, in
a comment ``# argv: --lr 1e-4``. ``benchmarks.truth.real_stage`` says what is real. Both ends are compared: the same exception
at the same line, or the same trained parameters. ``--fragments`` gives a script that names its data without making them a
module which does. Scripts that ``--out`` has are not run again.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import multiprocessing
import os
import re
import shlex
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from benchmarks.goals import Goal, leave
from benchmarks.truth.rehearsed import compared, rehearsed_in

_NOT_HERE = "not rehearsed from here on, because it needs what is not on this machine"
#: seconds after which a real run is given up
TIMEOUT = 120
_MODEL = "meta-llama/Llama-2-7b-hf"
#: what a fragment takes for granted
_FRAGMENT = """
import torch
from datasets import Dataset
_text = "The river runs past the old mill and under two bridges"
_ids = [[5 + (row + place) % 90 for place in range(16)] for row in range(8)]
_LABELS = {"causal": _ids, "classes": [row % 2 for row in range(8)], "tokens": [[place % 2 for place in range(16)]] * 8}
_rows = {"input_ids": _ids, "attention_mask": [[1] * 16] * 8, "labels": _LABELS["KIND"]}
_pairs = {"prompt": [_text] * 8, "chosen": [_text + " now"] * 8, "rejected": [_text + " later"] * 8}
data = ds = dataset = train = train_data = train_dataset = Dataset.from_dict(_pairs if "KIND" == "pairs" else _rows)
batches = loader = [{name: torch.tensor(held[:2]) for name, held in _rows.items()}] * 3
def build_loader(*_, **__): return loader
def make_dataset(*_, **__): return data
"""


def kind_of(text: str) -> str:
    """Return the kind of data that a fragment trains on, from the names of its classes."""
    if re.search(r"DPO|Reward|ORPO|CPO|KTO|GRPO", text):
        return "pairs"
    return "classes" if "SequenceClassification" in text else "tokens" if "TokenClassification" in text else "causal"


def completed(text: str) -> str:
    """Return the text of a script whose first import also takes the names of the fragments' module. No line moves.

    A model that is nobody's, which such scripts name, becomes one whose config is known.
    """
    text = re.sub(r"(?<=[\"'])org/base[\w-]*", _MODEL, text)
    return re.sub(r"^(?=(import|from) (?!__future__))", "from fragment import *; ", text, count=1, flags=re.MULTILINE)


def place(file: Path, folder: Path, *, fragments: bool) -> list[str]:
    """Copy a script and the files beside it into a folder, and return its arguments."""
    for one in file.parent.iterdir():
        if one.is_dir():
            shutil.copytree(one, folder / one.name)
        elif one == file or one.suffix not in (".py", ".ipynb") or one.stem.startswith("helper"):
            shutil.copy(one, folder / one.name)
    text = file.read_text("utf-8")
    if fragments:
        folder.joinpath("fragment.py").write_text(_FRAGMENT.replace("KIND", kind_of(text)))
        folder.joinpath(file.name).write_text(completed(text))
    first = re.match(r"# argv: (.*)", text)
    return shlex.split(first[1]) if first else []


def run(file: Path, record: Any, *, fragments: bool) -> dict[str, Any]:
    """Return the real end of a script, and the rehearsed one."""
    with tempfile.TemporaryDirectory(prefix="kbitlint-end-") as folder:
        argv = place(file, Path(folder), fragments=fragments)
        line = {"name": file.name, **forked(record, Path(folder), file.name, argv)}
    with tempfile.TemporaryDirectory(prefix="kbitlint-end-") as folder:
        place(file, Path(folder), fragments=fragments)
        line["rehearsal"] = rehearsed_in(folder, [file.name, *argv])
    if line.get("trained") is not None:
        line["trained"] = _any_layer(line["trained"])
        line["rehearsal"]["trained"] = _any_layer(line["rehearsal"]["trained"])
    return line


def _any_layer(names: list[str]) -> list[str]:
    """Return names without the numbers of layers, of which a tiny model has fewer."""
    return sorted({re.sub(r"\.\d+(?=\.|$)", ".*", name) for name in names})


def forked(record: Any, folder: Path, name: str, argv: list[str]) -> dict[str, Any]:
    """Return the real end of a script in a process of its own."""
    receive, send = multiprocessing.get_context("fork").Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_child, args=(record, folder, name, argv, send))
    process.start()
    send.close()
    found = None
    with contextlib.suppress(EOFError):
        found = receive.recv() if receive.poll(TIMEOUT) else None
    process.kill()
    process.join()
    output = folder.joinpath("output")
    tail = output.read_text("utf-8", "replace")[-1500:] if output.exists() else ""
    return {**(found or {"error": "", "line": None, "trained": None, "real": "no answer"}), "output": tail}


def _child(record: Any, folder: Path, name: str, argv: list[str], send: Any) -> None:
    from benchmarks.truth.real_stage import outcome

    os.chdir(folder)
    handle = os.open("output", os.O_WRONLY | os.O_CREAT)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.update(WANDB_MODE="disabled", HF_DATASETS_OFFLINE="1", TMPDIR=str(folder))
    send.send(outcome(record, name, argv))
    os._exit(0)  # without the end of the interpreter, which costs a second


def difference(line: dict[str, Any]) -> str | None:
    """Return in what the ends of a script differ, or None. A script that has no real end here counts as none."""
    if line["real"] == "no answer":
        return None
    if not line["error"] and not line["rehearsal"]["raised"] and not line["trained"] and not line["rehearsal"]["trained"]:
        return None
    if any(f":{line['line']}: {_NOT_HERE}" in skip for skip in line["rehearsal"]["skips"]):
        return None  # the real run ends there too: its folder or package is not here
    return compared(line)


def goals(lines: list[dict[str, Any]]) -> list[Goal]:
    """Return the goals on the ends of scripts."""
    known = [line for line in lines if line["real"] != "no answer"]
    same = [line for line in known if difference(line) is None]
    false = [line for line in known if line["rehearsal"]["raised"] and not line["error"]]
    return [
        Goal(
            f"scripts that end in the rehearsal as really, of {len(known)}",
            len(same) / max(len(known), 1),
            0.98,
            "%",
            at_least=True,
        ),
        Goal("exceptions of a rehearsal alone", len(false), 0, "", of=len(known)),
    ]


def main() -> int:
    """Run what is not yet measured, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("script-ends.jsonl"))
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--fragments", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    kept = {}
    if options.out.exists():
        kept = {(one := json.loads(text))["name"]: one for text in options.out.read_text().splitlines()}
    wanted = [
        file
        for file in sorted(options.folder.iterdir())
        if file.suffix in (".py", ".ipynb") and not file.stem.startswith("helper")
    ]
    wanted = [file for file in wanted if (file.name in options.only if options.only else file.name not in kept)]
    from benchmarks.truth.real_stage import prepare  # it changes the libraries of this process

    record = prepare()
    import accelerate, datasets, peft, transformers.trainer, trl  # noqa: E401, F401, I001  # loaded before the processes fork
    import bitsandbytes  # noqa: F401  # see above
    from trl.trainer import dpo_trainer, sft_trainer  # noqa: F401  # see above

    for file in wanted:
        kept[file.name] = line = run(file, record, fragments=options.fragments)
        options.out.write_text("".join(json.dumps(one) + "\n" for one in kept.values()))
        print(
            f"{file.name}: {line['real']}, {line['error'] or 'no error'} at {line['line']}; {difference(line) or 'the same'}",
            flush=True,
        )
    print(collections.Counter(line["real"] for line in kept.values()))
    return leave(goals(list(kept.values())), options.json)


if __name__ == "__main__":
    sys.exit(main())
