"""How much memory is left, as Linux tells it."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

from sdgrpc.machine import free_memory
from sdgrpc.machine.free_memory import available_bytes, fits

GIB = 1 << 30


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


MACHINE = {"proc/meminfo": "MemTotal: 9999999 kB\nMemAvailable:    4194304 kB\nSwapFree: 1048576 kB\n"}
GROUP = {
    "proc/self/cgroup": "0::/service/one\n",
    "sys/fs/cgroup/service/one/memory.max": "max\n",
    "sys/fs/cgroup/service/one/memory.current": f"{GIB}\n",
    "sys/fs/cgroup/service/memory.max": f"{3 * GIB}\n",
    "sys/fs/cgroup/service/memory.current": f"{2 * GIB}\n",
    "sys/fs/cgroup/service/memory.stat": f"anon 7\ninactive_file {GIB // 2}\n",
}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, math.inf),
        (MACHINE, 5 * GIB),
        (MACHINE | GROUP, 1.5 * GIB),
        (MACHINE | GROUP | {"sys/fs/cgroup/service/memory.max": f"{90 * GIB}\n"}, 5 * GIB),
        # A container sees its own group at the top.
        (
            MACHINE
            | {
                "proc/self/cgroup": "1:memory:/old\n0::/\n",
                "sys/fs/cgroup/memory.max": f"{4 * GIB}\n",
                "sys/fs/cgroup/memory.current": f"{GIB}\n",
            },
            3 * GIB,
        ),
    ],
    ids=["unknown", "machine", "limit of a group above", "limit beyond the machine", "container"],
)
def test_the_least_of_what_is_left(tmp_path: Path, files: dict[str, str], expected: float) -> None:
    """Free memory and swap of the machine, and the limits of every control group that holds the process."""
    assert available_bytes(write(tmp_path, files)) == expected


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_this_machine() -> None:
    """It has some memory, and not without end."""
    assert 0 < available_bytes() < math.inf
    assert not fits(1 << 60)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_a_limit_of_the_process() -> None:
    """What `ulimit -v` leaves counts."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    size = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmSize")
    )
    limit = 1024 * int(size.split()[1]) + GIB
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        assert available_bytes() <= GIB
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_freed_memory_is_handed_back_before_it_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second look is the one that decides."""
    looks = iter([1.0, 3.0, 1.0, 1.0])
    monkeypatch.setattr(free_memory, "available_bytes", lambda: next(looks))
    assert [fits(2), fits(2)] == [True, False]
