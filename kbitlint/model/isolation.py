"""Isolation of an audit from the modes of its process, and of the process from the audit."""

from __future__ import annotations

import gc
import random
import sys
import warnings
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import torch
from torch._C import _len_torch_function_stack
from torch.overrides import _pop_mode, _push_mode
from torch.utils._device import DeviceContext
from torch.utils._python_dispatch import _disable_current_modes

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Device types with an autocast mode of their own, for which PyTorch publishes wheels.
_AUTOCAST = ("cpu", "cuda", "mps", "xpu")


@contextmanager
def isolated() -> Iterator[None]:
    """Run the body of the ``with`` statement in the modes of a fresh process, and restore the caller's modes afterwards.

    These modes are reset: gradient mode, inference mode, anomaly detection, autocast, default dtype and default device.
    Function modes and dispatch modes of the caller are suspended, such as a counter of operations or fake tensors. The
    compiler compiles nothing. The random states of Python, NumPy and torch are restored.
    """
    with ExitStack() as stack:
        stack.enter_context(_without_modes())
        stack.enter_context(_same_random_state())
        stack.enter_context(_default_tensors())
        stack.enter_context(_saved_tensors_hooks_allowed())
        stack.enter_context(torch.inference_mode(mode=False))  # this enables gradients as well
        stack.enter_context(torch.autograd.set_detect_anomaly(mode=False))
        for device in _AUTOCAST:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if "torch._dynamo" in sys.modules:  # otherwise no code is compiled, and the import takes a second
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield


@contextmanager
def seeded() -> Iterator[None]:
    """Run the body of the ``with`` statement isolated, silent, and with fixed random seeds.

    The garbage collector is off meanwhile. A collection visits every module, and the copy of a model would start hundreds.
    """
    with isolated(), quiet(), uncollected():
        torch.manual_seed(0)
        random.seed(0)
        yield


@contextmanager
def uncollected() -> Iterator[None]:
    """Run the body of the ``with`` statement without the garbage collector, which visits every module."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress the logs, progress bars and warnings of other libraries."""
    from transformers.utils import logging  # takes a second to import

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def _same_random_state() -> Iterator[None]:
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    numpy = sys.modules.get("numpy")
    python, numbers = random.getstate(), None if numpy is None else numpy.random.get_state()
    try:
        with torch.random.fork_rng(devices=list(devices)):
            yield
    finally:
        random.setstate(python)
        if numpy is not None:
            numpy.random.set_state(numbers)


@contextmanager
def _without_modes() -> Iterator[None]:
    """Suspend the caller's modes. The mode of ``with torch.device(...)`` stays, because ``_default_tensors`` reads it."""
    modes = [_pop_mode() for _ in range(_len_torch_function_stack())][::-1]
    try:
        for mode in modes:
            if isinstance(mode, DeviceContext):
                _push_mode(mode)
        with _disable_current_modes():
            yield
    finally:
        while _len_torch_function_stack():
            _pop_mode()
        for mode in modes:
            _push_mode(mode)


@contextmanager
def _saved_tensors_hooks_allowed() -> Iterator[None]:
    """Allow hooks on saved tensors, which ``torch.autograd.graph.disable_saved_tensors_hooks`` forbids."""
    autograd = torch._C._autograd  # noqa: SLF001  # torch has no public way to read this state
    refusal = autograd._saved_tensors_hooks_get_disabled_error_message()  # noqa: SLF001  # see above
    autograd._saved_tensors_hooks_enable()  # noqa: SLF001  # see above
    try:
        yield
    finally:
        if refusal is not None:
            autograd._saved_tensors_hooks_disable(refusal)  # noqa: SLF001  # see above


@contextmanager
def _default_tensors() -> Iterator[None]:
    """Create tensors as float32 on the CPU by default."""
    dtype, device = torch.get_default_dtype(), _default_device()
    torch.set_default_dtype(torch.float32)
    try:
        if torch.get_default_device().type == "cpu":
            yield
        else:
            with torch.device("cpu"):
                yield
    finally:
        torch.set_default_dtype(dtype)
        if _default_device() != device:
            torch.set_default_device(device)


def _default_device() -> torch.device | None:
    """Return the device set by ``set_default_device``, or None.

    ``get_default_device`` also reports ``with torch.device(...)``.
    """
    context = getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)  # noqa: SLF001  # torch has no public way to distinguish the two
    return None if context is None else context.device
