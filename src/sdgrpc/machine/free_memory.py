"""How much memory the machine has left. Linux grants more than it has and kills the process that uses it."""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")
# What a control group without a limit says.
UNLIMITED = "max"


def available_bytes(root: Path = ROOT) -> float:
    """Bytes that this process may still take: the machine's, and what its control groups and limits leave.

    Infinite where nobody says. `root` is the place of `proc` and `sys`.
    """
    return min([_machine(root), _address_space(root), *_control_groups(root)])


def fits(needed: int) -> bool:
    """Whether `needed` bytes are to be had, counting what this process has freed and not handed back yet."""
    if needed <= available_bytes():
        return True
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's alone
        if trim is not None:
            trim(0)
    return needed <= available_bytes()


def _machine(root: Path) -> float:
    """What can be had without swapping others out, and the free swap."""
    found = _numbers(root / "proc" / "meminfo")
    if "MemAvailable:" not in found:
        return math.inf
    return 1024 * (found["MemAvailable:"] + found.get("SwapFree:", 0))


def _control_groups(root: Path) -> Iterator[float]:
    """What the process's group and each above it leave (cgroup v2); their file caches make room."""
    line = next((one for one in _lines(root / "proc/self/cgroup") if one.startswith("0::")), None)
    if line is None:
        return
    top = root / "sys" / "fs" / "cgroup"
    group = top / line.removeprefix("0::").strip("/")
    for one in (group, *group.parents):
        limit, used = _lines(one / "memory.max"), _lines(one / "memory.current")
        if limit and used and limit[0] != UNLIMITED:
            cached = _numbers(one / "memory.stat").get("inactive_file", 0)
            yield int(limit[0]) - int(used[0]) + cached
        if one == top:
            return


def _address_space(root: Path) -> float:
    """What `ulimit -v` leaves."""
    try:
        import resource
    except ImportError:  # Windows
        return math.inf
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    used = _numbers(root / "proc/self/status").get("VmSize:")
    return math.inf if limit == resource.RLIM_INFINITY or used is None else limit - 1024 * used


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def _numbers(path: Path) -> dict[str, int]:
    """The whole numbers of a file with `name number` on its lines."""
    words = [line.split() for line in _lines(path)]
    return {one[0]: int(one[1]) for one in words if len(one) > 1 and one[1].isdecimal()}
