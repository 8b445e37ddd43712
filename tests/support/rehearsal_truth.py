"""Real runs of training scripts on the CPU, one after the other in this process: what each raises, and what it trains.

python rehearsal_truth.py FOLDER NAME...: each FOLDER/NAME holds a train.py, and an argv.json; prints a line of JSON for each.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import traceback
import types
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", CUDA_VISIBLE_DEVICES="", TOKENIZERS_PARALLELISM="false")
TRAINED = []


def watch():
    """Record the modules with trained parameters at the start of each Trainer's training."""
    import transformers

    original = transformers.Trainer.train

    def train(self, *args, **kwargs):
        TRAINED.append(sorted({name.rpartition(".")[0] for name, p in self.model.named_parameters() if p.requires_grad}))
        return original(self, *args, **kwargs)

    transformers.Trainer.train = train


def outcome(folder):
    """Run a script as ``__main__``, and return (class of its exception, line, modules trained)."""
    script = folder / "train.py"
    os.chdir(folder)
    TRAINED.clear()
    main = types.ModuleType("__main__")
    main.__file__ = str(script)
    before = sys.modules["__main__"], list(sys.path), set(sys.modules)
    sys.modules["__main__"], sys.argv = main, ["train.py", *json.loads((folder / "argv.json").read_text())]
    sys.path.insert(0, str(folder))
    kind, line = None, None
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            exec(compile(script.read_text(), str(script), "exec"), main.__dict__)  # noqa: S102  # as Python runs it
        except BaseException as error:  # noqa: BLE001  # every end is an outcome
            kind = type(error).__name__
            frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(str(folder))]
            line = frames[-1].lineno if frames else None
            message = str(error)[:200]
    sys.modules["__main__"], sys.path[:] = before[0], before[1]
    sys.modules.pop("helper", None)
    return {"name": folder.name, "kind": kind, "line": line, "trained": list(TRAINED), "message": message if kind else ""}


if __name__ == "__main__":
    from kbitlint.extras import load_bitsandbytes

    load_bitsandbytes("real runs")
    watch()
    root = Path(sys.argv[1])
    for name in sys.argv[2:]:
        print(json.dumps(outcome(root / name)), flush=True)  # noqa: T201  # the test reads it
