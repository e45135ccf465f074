"""How many LoRA sets there is room for."""

from __future__ import annotations

from collections.abc import Sequence

from sdgrpc.domain import ResidentSet


def max_sets(resident: Sequence[ResidentSet], budget_bytes: int, *, unknown: int) -> int:
    """Return how many sets of the mean size fit, and at least those that are there.

    Args:
        resident: the sets in memory, of which each model has its own.
        budget_bytes: what the sets of one model may take.
        unknown: what to say while there is none to measure.

    """
    total = sum(one.size_bytes for one in resident)
    if not total:
        return unknown
    models = len({one.model for one in resident})
    return max(len(resident), budget_bytes * models * len(resident) // total)
