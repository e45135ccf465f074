"""A picture through a network in overlapping tiles, so that memory does not grow with the picture.

What a convolution sees beyond the edge of a tile is missing there, so near it a tile is wrong. Of the overlap
of two tiles the outer quarters are each other's; between them one fades into the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np

TILE, OVERLAP = 256, 32
"""Pixels of the picture that goes in."""

Enlarge = Callable[[np.ndarray], np.ndarray]
"""Pixels `[h, w, 3]`, uint8, to `[scale * h, scale * w, 3]`, float32 of the same range."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A part of a picture, by its first row and column and its size."""

    top: int
    left: int
    height: int
    width: int


def tiles_of(width: int, height: int, tile: int = TILE, overlap: int = OVERLAP) -> list[Tile]:
    """The tiles of a picture, row by row; those at the ends are as large as the others, and overlap more."""
    return [
        Tile(top, left, min(tile, height), min(tile, width))
        for top in _starts(height, tile, overlap)
        for left in _starts(width, tile, overlap)
    ]


def _starts(side: int, tile: int, overlap: int) -> Iterator[int]:
    if side <= tile:
        yield 0
        return
    step = tile - overlap
    yield from range(0, side - tile, step)
    yield side - tile


def upscaled(
    pixels: np.ndarray,
    enlarge: Enlarge,
    scale: int,
    *,
    on_tile: Callable[[int, int], None] = lambda _tile, _count: None,
    tile: int = TILE,
    overlap: int = OVERLAP,
) -> np.ndarray:
    """Pixels `[h, w, 3]`, uint8, to `[scale * h, scale * w, 3]`; a picture of one tile is not cut.

    `on_tile` is told each tile, from 1, that is done, and how many there are; what it raises ends the work.
    """
    height, width = pixels.shape[:2]
    result = np.empty((height * scale, width * scale, 3), np.uint8)
    parts = tiles_of(width, height, tile, overlap)
    done = 0
    for top, row in groupby(parts, key=lambda part: part.top):
        # A row of tiles is whole before it fades into the one above: each tile's edge is gone by then.
        band = np.empty((parts[0].height * scale, width * scale, 3), np.uint8)
        for part in row:
            cut = pixels[part.top : part.top + part.height, part.left : part.left + part.width]
            drawn = enlarge(np.ascontiguousarray(cut))
            place = band[:, part.left * scale : (part.left + part.width) * scale]
            _lay(drawn.swapaxes(0, 1), place.swapaxes(0, 1), part.left, overlap * scale)
            done += 1
            on_tile(done, len(parts))
        _lay(band, result[top * scale : top * scale + len(band)], top, overlap * scale)
    return result


def _lay(drawn: np.ndarray, place: np.ndarray, start: int, overlap: int) -> None:
    """Lay pixels `[n, m, 3]` over those in place, fading in over the first rows unless they are the first."""
    if start:
        share = _ramp(len(drawn), overlap)[:, None, None]
        drawn = share * drawn + (1 - share) * place
    place[:] = np.rint(drawn)


def _ramp(length: int, overlap: int) -> np.ndarray:
    """From 0 to 1 over the middle half of the overlap."""
    at = (np.arange(length, dtype=np.float32) + 0.5 - overlap / 4) / (overlap / 2)
    ramp: np.ndarray = np.clip(at, 0.0, 1.0)
    return ramp
