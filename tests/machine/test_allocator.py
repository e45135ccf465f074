"""The C library keeps freed memory, and the collector leaves libraries' objects alone."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from sdgrpc.machine import allocator

FAULTS = """
import sys, resource, threading, torch
from sdgrpc.machine.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
torch.set_num_threads(1)
counted = []
def work():
    for number in range(12):
        if number == 8:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        pieces = [torch.ones(40 << 20, dtype=torch.uint8) for _ in range(3)]
        del pieces
    counted.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
thread = threading.Thread(target=work)
thread.start()
thread.join()
print(counted[0])
"""


def faults(how: str) -> int:
    """Page faults of a thread that makes and drops 120 MiB four times, once its heap has grown for that.

    The pieces are larger than those that glibc learns to keep by itself.
    """
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True, timeout=120
    )
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's own settings")
def test_memory_is_used_again() -> None:
    """What a thread frees it gets again without a page fault; by default the system takes it back."""
    kept, usual = faults("keep"), faults("usual")
    assert kept < usual / 10
    assert kept < 5_000


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other C libraries have no such settings."""
    monkeypatch.setattr(allocator.platform, "libc_ver", lambda: ("", ""))  # type: ignore[attr-defined]
    assert allocator.keep_freed_memory() is False


def test_what_is_imported_is_left_out_of_collections() -> None:
    """Nothing is collected within, what was made there is not looked through, and collecting goes on."""
    try:
        with allocator.libraries_kept():
            assert not gc.isenabled()
            made: list[object] = [[]]
        assert gc.isenabled()
        assert gc.get_freeze_count() > 0
        assert not any(one is made for one in gc.get_objects())
    finally:
        gc.unfreeze()
    assert any(one is made for one in gc.get_objects())


def test_collecting_goes_on_after_an_import_that_failed() -> None:
    """Also where an import raises."""
    try:
        with pytest.raises(ImportError, match="nobody"), allocator.libraries_kept():
            raise ImportError("nobody has it")
        assert gc.isenabled()
    finally:
        gc.unfreeze()
