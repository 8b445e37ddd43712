"""``--device``: one line for each device that cannot be had, which names what can."""

from __future__ import annotations

import bitsandbytes
import pytest
import torch

from kbitlint.errors import KbitlintError
from kbitlint.model.devices import usable

NO = {"xpu": "Intel GPU", "mps": "Apple GPU", "hpu": "Intel Gaudi", "npu": "Ascend NPU", "cuda:1": "CUDA device"}


@pytest.fixture
def bare(monkeypatch):
    """A machine without any accelerator."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.xpu, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


def refusal(device):
    with pytest.raises(KbitlintError) as caught:
        usable(device)
    return str(caught.value)


@pytest.mark.parametrize("device", NO)
def test_a_device_that_is_not_here_is_named(bare, device):
    assert refusal(device) == (
        f"--device {device}: torch {torch.__version__} finds no {NO[device]} here; --device cpu works everywhere"
    )


@pytest.mark.parametrize("device", ["rocm", "hip", "rocm:1"])
def test_amds_gpus_are_cuda_to_torch(device):
    named = device.replace("rocm", "cuda").replace("hip", "cuda")

    assert refusal(device) == f"--device {device}: torch calls AMD's GPUs cuda, so pass --device {named}"


@pytest.mark.parametrize("device", ["", "CUDA", "meta", "vulkan", "cuda:", "cuda:-1", "cuda:x", "cuda:²", "gpu", "cpu\n"])
def test_what_trains_no_k_bit_layer_is_refused_with_what_does(device):
    assert refusal(device) == (
        f"--device {device!r}: names no device that trains k-bit layers: pass cuda, cuda:1, cpu, xpu, mps, hpu, npu"
    )


@pytest.mark.parametrize("device", ["cpu", "cpu:0"])
def test_a_cpu_is_everywhere(bare, device):
    assert usable(device) == "cpu"


def test_an_index_behind_the_last_device_is_refused(monkeypatch):
    monkeypatch.setattr(torch.xpu, "is_available", lambda: True)
    monkeypatch.setattr(torch.xpu, "device_count", lambda: 2)

    assert usable("xpu:1") == "xpu:1"
    assert refusal("xpu:2") == "--device xpu:2: this machine has 2, the last one is xpu:1"


def test_a_device_that_the_installed_bitsandbytes_does_not_know(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(bitsandbytes, "supported_torch_devices", {"cpu", "cuda"})

    assert refusal("mps") == (
        f"--device mps: bitsandbytes {bitsandbytes.__version__} has no layers for it, only for cpu, cuda; "
        "upgrade it, or pass --device cpu"
    )


def test_the_installed_bitsandbytes_has_each_device_that_is_offered():
    from kbitlint.model import devices

    assert set(devices._KINDS) == bitsandbytes.supported_torch_devices


@pytest.mark.parametrize("command", [("check", "--fix", "plants:unprepared"), ("demo",)])
def test_a_command_says_it_in_one_line(run, bare, command):
    result = run(*command, "--device", "mps")

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"kbitlint: {refusal('mps')}\n"
