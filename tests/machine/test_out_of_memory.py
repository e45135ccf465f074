"""Telling out-of-memory errors from others, and letting go of what the attempt held."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from sdgrpc.errors import OutOfMemory
from sdgrpc.machine.out_of_memory import as_out_of_memory, is_out_of_memory

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB, other allocations: 1 GB)"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ],
    ids=lambda error: str(error)[:12],
)
def test_every_devices_error_is_recognised(error):
    """With cuda it has a class, with the CPU and mps only a sentence."""
    assert is_out_of_memory(error)

    def work():
        raise error

    with pytest.raises(OutOfMemory, match="smaller picture or fewer images"):
        as_out_of_memory(work, CPU)


def test_the_cpus_own_error():
    """What torch really raises for more memory than any machine has."""
    with pytest.raises(OutOfMemory):
        as_out_of_memory(lambda: torch.empty(2**60), CPU)


def test_other_errors_pass():
    """A fault of ours keeps its name."""
    with pytest.raises(RuntimeError, match="shapes"):
        as_out_of_memory(lambda: torch.ones(2, 3) @ torch.ones(2, 3), CPU)


def test_nothing_of_the_attempt_is_held():
    """A smaller try needs the memory that the first one took, while our error is still at hand."""
    seen: list[weakref.ref] = []

    def work():
        large = torch.ones(1000)
        seen.append(weakref.ref(large))
        torch.empty(2**60)
        return large

    gc.disable()  # so that it is the frames that let go, not a collection that happened to come
    try:
        with pytest.raises(OutOfMemory) as failure:
            as_out_of_memory(work, CPU)
        assert seen[0]() is None
        assert failure.value.__context__ is None
    finally:
        gc.enable()


def test_what_works_is_returned():
    """Without an error nothing is changed."""
    assert as_out_of_memory(lambda: 3, CPU) == 3
