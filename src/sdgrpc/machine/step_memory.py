"""How much of a GPU's memory a call takes while it runs."""

from __future__ import annotations

import torch


class StepMemory:
    """Measures from its making on. Other devices tell nothing of it, and are 0.

    Calls of other threads at the same time are counted too: what is measured leans to the high side.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before = 0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self._before = torch.cuda.memory_allocated(device)

    def taken(self) -> int:
        """Return the bytes at the peak beyond those that were allocated before."""
        if self._device.type != "cuda":
            return 0
        return max(0, torch.cuda.max_memory_allocated(self._device) - self._before)
