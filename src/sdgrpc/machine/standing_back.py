"""Threads that leave the processor to others of the process."""

from __future__ import annotations

import os
import sys
import threading

BEHIND_STEPS = 5
"""Of what makes jobs ready: it gets a quarter of a core that a step wants, and all of one that none does."""
LAST = 19
"""The kernel's last."""


def stand_back(by: int = BEHIND_STEPS) -> None:
    """Have the calling thread wait for those that are less nice, where they want the same core.

    Threads that it starts do so, too. Only on Linux: elsewhere priorities are not a thread's.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        nice = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, min(nice + by, LAST))
