"""Numbers as their senders wrote them: the contract's floats have 32 bits and are read as decimals."""

from __future__ import annotations

import math
import struct


def shortest(value: float) -> float:
    """The shortest decimal with the same float32: what the client wrote, `0.7` for 0.699999988079071."""
    if isinstance(value, int) or not math.isfinite(value):
        return value
    packed = struct.pack("<f", value)
    candidates = (float(f"{value:.{digits}g}") for digits in range(6, 10))
    return next((each for each in candidates if _float32(each) == packed), value)


def _float32(value: float) -> bytes:
    try:
        return struct.pack("<f", value)
    except OverflowError:  # rounding up from the largest float32 leaves its range
        return b""
