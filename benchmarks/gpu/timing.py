"""Timing on a device whose work is queued, and the time that a run keeps to."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch

Work = Callable[[], object]


class Clock:
    """The time of a run: sections ask whether they still fit."""

    def __init__(self, minutes: float) -> None:
        self._end = time.monotonic() + 60 * minutes

    @property
    def left(self) -> float:
        """Seconds left."""
        return self._end - time.monotonic()


def synchronize(device: torch.device) -> None:
    """Wait until a device has done everything."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(work: Work, device: torch.device) -> float:
    """Seconds of a call, the device's work included."""
    synchronize(device)
    started = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - started


def alternate(works: Mapping[str, Work], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Time each work in turn, after a round that does not count."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for number in range(-1, rounds):
        for name, work in works.items():
            spent = timed(work, device)
            if number >= 0:
                times[name].append(spent)
    return times
