"""What the C library does with freed memory, and Python's collector with objects that stay."""

from __future__ import annotations

import ctypes
import gc
import platform
from collections.abc import Iterator
from contextlib import contextmanager

# glibc's mallopt(3).
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let glibc keep what is freed for the next that asks, whichever thread that is; True if it does.

    A step allocates and frees its activations, some GB. By default glibc maps large pieces anew each time,
    and gives a thread that is not the main one an arena of its own, which it soon hands back to the system:
    70,000 to 350,000 page faults a step of SD1.5 on a CPU, and 4 to 24 % of its time. The process then
    stays as large as it was at most; `malloc_trim` still hands back what is free. Call it before other
    threads begin. Without glibc nothing is done.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    wanted = ((M_ARENA_MAX, 1), (M_MMAP_THRESHOLD, 1 << 30), (M_TRIM_THRESHOLD, LARGEST))
    done = [mallopt(option, value) == 1 for option, value in wanted]
    return all(done)


@contextmanager
def libraries_kept() -> Iterator[None]:
    """Import libraries within: nothing is collected meanwhile, and what there is then is left out for good.

    torch, diffusers and transformers make half a million objects that live as long as the process. Looking
    through them again and again while they are made took a quarter of their imports' time, and one full
    collection takes 40 ms for ever after, which a LoRA file's thousands of keys can set off.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
