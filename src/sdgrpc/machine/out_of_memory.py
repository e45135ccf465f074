"""Devices that run out of memory: what their errors look like, and ours in their place."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from sdgrpc.errors import OutOfMemory

logger = logging.getLogger(__name__)

T = TypeVar("T")

OUT_OF_MEMORY = "the device ran out of memory for this job; ask for a smaller picture or fewer images"

# What torch's allocators and the libraries below them say in errors that have no class of their own: the
# CPU's allocator, mps, cuda's libraries.
PHRASES = (
    "can't allocate memory",
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device, or the machine, had no memory left."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in PHRASES)


def as_out_of_memory(work: Callable[[], T], device: torch.device) -> T:
    """Return what `work` returns; where it runs out of memory, free what it held and raise ours.

    Raises:
        OutOfMemory: the device's memory did not suffice. The cause is logged and not chained: its
            traceback would hold the tensors of the attempt.

    """
    try:
        return work()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
    logger.warning("out of memory on %s: %s", device, reason)
    give_back(device)
    raise OutOfMemory(OUT_OF_MEMORY)


def give_back(device: torch.device) -> None:
    """Hand the memory that torch keeps for later back to the device, for pieces of other sizes."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
