"""Errors after which a device does nothing more for this process: CUDA's sticky ones, and HIP's.

CUDA's documentation of `cudaError_t` says of them that they leave "the process in an inconsistent state and
any further CUDA work will return the same error. To continue using CUDA, the process must be terminated and
relaunched."
"""

from __future__ import annotations

import logging

import torch

logger = logging.getLogger(__name__)

# What cudaGetErrorString says of the errors that stay: 700, 702, 709, 710, 714 to 719, 721; of broken memory
# and links, 214, 220, 226; and of a device that is gone, 46, 100, 4 and 999.
STICKY = (
    "an illegal memory access was encountered",
    "the launch timed out and was terminated",
    "context is destroyed",
    "device-side assert",
    "hardware stack error",
    "an illegal instruction was encountered",
    "misaligned address",
    "operation not supported on global/shared address space",
    "invalid program counter",
    "unspecified launch failure",
    "exception was raised",
    "uncorrectable ecc",
    "uncorrectable nvlink",
    "nvlink error",
    "invalid access of peer gpu memory",
    "is/are busy or unavailable",
    "no cuda-capable device is detected",
    "gpu is lost",
    "driver shutting down",
    "cuda error: unknown error",
    "hip error: unknown error",
)
# Errors of a device or its libraries that may be one call's alone, such as an argument that does not fit.
SUSPECT = ("cuda error", "hip error", "cublas_status", "cudnn_status", "cusolver_status", "cusparse_status")


def is_sticky(error: BaseException) -> bool:
    """Tell whether an error says that the device does nothing more for this process."""
    if not isinstance(error, RuntimeError):
        return False
    text = str(error).lower()
    return _is_devices(error, text) and any(phrase in text for phrase in STICKY)


def is_lost(error: BaseException) -> bool:
    """As `is_sticky`; after any other error of a CUDA device the device is asked to do something small."""
    if is_sticky(error):
        return True
    if not isinstance(error, RuntimeError) or isinstance(error, torch.OutOfMemoryError):
        return False
    return _is_devices(error, str(error).lower()) and not works()


def works() -> bool:
    """Whether every CUDA device that this process uses still computes; True where it uses none."""
    if not (torch.cuda.is_available() and torch.cuda.is_initialized()):  # type: ignore[no-untyped-call]
        return True
    try:
        for index in range(torch.cuda.device_count()):
            if torch.cuda.memory_reserved(index):
                torch.ones(1, device=f"cuda:{index}").add_(1).item()
    except torch.OutOfMemoryError:
        return True
    except RuntimeError as error:
        logger.warning("the device does not compute any more: %s", str(error).partition("\n")[0])
        return False
    return True


def _is_devices(error: RuntimeError, text: str) -> bool:
    return isinstance(error, torch.AcceleratorError) or any(phrase in text for phrase in SUSPECT)
