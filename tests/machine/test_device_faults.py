"""Which errors say that a device is lost."""

from __future__ import annotations

import pytest
import torch

from sdgrpc.machine import device_faults
from sdgrpc.machine.device_faults import is_lost, is_sticky

STICKY = [
    "CUDA error: an illegal memory access was encountered",
    "CUDA error: unspecified launch failure",
    "CUDA error: device-side assert triggered\nCUDA kernel errors might be asynchronously reported",
    "CUDA error: uncorrectable ECC error encountered",
    "CUDA error: misaligned address",
    "CUDA error: the launch timed out and was terminated",
    "CUDA error: CUDA-capable device(s) is/are busy or unavailable",
    "CUDA error: unknown error",
    "HIP error: an illegal memory access was encountered",
]
PASSING = [
    "CUDA error: invalid argument",
    "CUDA error: out of memory",
    "CUDA error: no kernel image is available for execution on the device",
    "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED",
    "mat1 and mat2 shapes cannot be multiplied",
    "a prompt about a device-side assert",
]


@pytest.mark.parametrize("text", STICKY)
@pytest.mark.parametrize("kind", [RuntimeError, torch.AcceleratorError])
def test_sticky_errors(text: str, kind: type[RuntimeError]) -> None:
    """Nothing on that device works any more."""
    assert is_sticky(kind(text))
    assert is_lost(kind(text))


@pytest.mark.parametrize("text", PASSING)
def test_errors_of_one_call(text: str) -> None:
    """The device goes on, as a device that is not used does too."""
    assert not is_sticky(RuntimeError(text))
    assert not is_lost(RuntimeError(text))


def test_other_errors_are_no_devices(monkeypatch) -> None:
    """Whatever their text says; nor is running out of memory."""
    monkeypatch.setattr(device_faults, "works", lambda: False)
    assert not is_lost(ValueError(STICKY[0]))
    assert not is_lost(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_lost(RuntimeError(PASSING[4]))


def test_a_device_that_computes_nothing_more_is_lost(monkeypatch) -> None:
    """After an error that tells nothing by itself it is asked."""
    monkeypatch.setattr(device_faults, "works", lambda: False)
    assert is_lost(RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling cublasSgemm"))
