"""How many rows a UNet call may have: the operator's bound, and what running out of memory taught."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sdgrpc.engine.job import CallSize

# Calls at a learned bound before a larger one is tried again. It doubles with each try that failed, so a
# bound that is the device's own costs next to nothing, and one that a passing neighbour caused is lifted.
FIRST_PATIENCE = 200
# Sizes whose bounds are remembered.
REMEMBERED = 256


@dataclass(slots=True)
class _Learned:
    """A bound; `full_calls` have reached it since it last changed. `raised`: none has since it was raised."""

    rows: int
    patience: int = FIRST_PATIENCE
    full_calls: int = 0
    raised: bool = False


class RowLimits:
    """The most rows of a call, by size: of its model's bound and the learned one the smaller.

    A call that ran out of memory halves the bound of its size. After `FIRST_PATIENCE` calls that reached the
    bound it is doubled again; should that fail, the next try comes after twice as many. Nothing outlives the
    process. Used by one thread.
    """

    def __init__(self, rows: int, by_model: Mapping[str, int] | None = None) -> None:
        self._rows = rows
        self._by_model = dict(by_model or {})
        self._learned: dict[CallSize, _Learned] = {}

    def of(self, size: CallSize) -> int:
        """Return how many rows a call of this size may have now."""
        known = self._learned.get(size)
        return self.configured(size) if known is None else known.rows

    def configured(self, size: CallSize) -> int:
        """Return how many rows the operator allows, whatever was learned."""
        return self._by_model.get(size.model, self._rows)

    def failed(self, size: CallSize, rows: int) -> bool:
        """Learn that `rows` rows were too many; False if fewer than one row cannot be tried."""
        if rows <= 1:
            return False
        known = self._learned.get(size) or _Learned(rows)
        if rows > known.rows:  # a job that was alone tried it, which says nothing against the bound
            return True
        self._learned.pop(size, None)
        patience = known.patience * 2 if known.raised else known.patience
        self._learned[size] = _Learned(rows // 2, patience)  # the latest to learn is the last to be forgotten
        if len(self._learned) > REMEMBERED:
            del self._learned[next(iter(self._learned))]
        return True

    def succeeded(self, size: CallSize, rows: int) -> None:
        """Note that a call of `rows` rows had the memory it needed."""
        known = self._learned.get(size)
        if known is None or rows < known.rows:
            return
        if rows > known.rows:  # a job that was alone tried it
            known.rows, known.full_calls, known.raised = rows, 0, False
        known.full_calls, known.raised = known.full_calls + 1, False
        if known.full_calls >= known.patience and known.rows < self.configured(size):
            known.rows = min(2 * known.rows, self.configured(size))
            known.full_calls, known.raised = 0, True
