"""Pictures with margins around them."""

from __future__ import annotations

import numpy as np

from sdgrpc.domain import Margins, Picture


def with_margins(picture: Picture, margins: Margins, fill: int | None = None) -> Picture:
    """The picture with margins of one value, or of the colours of its edges."""
    pixels = np.frombuffer(picture.data, np.uint8).reshape(picture.height, picture.width, picture.channels)
    sides = ((margins.top, margins.bottom), (margins.left, margins.right), (0, 0))
    filled = {"mode": "edge"} if fill is None else {"constant_values": fill}
    wide: np.ndarray = np.pad(pixels, sides, **filled)
    height, width, channels = wide.shape
    return Picture(width, height, channels, wide.tobytes())
