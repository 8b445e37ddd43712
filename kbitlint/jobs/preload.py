"""Imports of the server of ``--jobs``, made before it forks a process for each target.

No module listed here may initialise CUDA, which a forked process cannot do again. bitsandbytes queries the devices when
it is imported. If the machine has a driver, only the processes of the targets import it, and PEFT.
"""

from __future__ import annotations

import contextlib
import importlib
from pathlib import Path

from kbitlint.errors import MissingExtraError
from kbitlint.extras import load_peft

ALWAYS = (
    "kbitlint.api",
    "kbitlint.model.build.meta",
    "kbitlint.model.trace.trace",
    "kbitlint.model.inspect.walk",
    "transformers.models.llama.modeling_llama",
    "transformers.quantizers.auto",
)

for name in ALWAYS:
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
if not Path("/dev/nvidiactl").exists():
    with contextlib.suppress(ImportError, MissingExtraError):
        load_peft("--jobs")
