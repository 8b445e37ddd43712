"""What the server of ``--jobs`` imports before it forks a process for each target.

Nothing here may initialise CUDA, which a forked process cannot do again. bitsandbytes asks for the devices while it is
imported, so it is left to the targets where there is a driver to ask.
"""

from __future__ import annotations

import contextlib
import importlib
from pathlib import Path

ALWAYS = (
    "kbitlint.api",
    "kbitlint.model.build.meta",
    "kbitlint.model.trace.trace",
    "kbitlint.model.inspect.walk",
    "transformers.models.llama.modeling_llama",
    "transformers.quantizers.auto",
)
WITHOUT_DRIVER = ("bitsandbytes", "peft")

for name in ALWAYS if Path("/dev/nvidiactl").exists() else (*ALWAYS, *WITHOUT_DRIVER):
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
