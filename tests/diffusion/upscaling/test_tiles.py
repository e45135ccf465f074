"""Pictures cut into tiles and put together again."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from sdgrpc.diffusion.upscaling.tiles import tiles_of, upscaled

RANDOM = np.random.default_rng(1).integers(0, 256, (90, 150, 3), dtype=np.uint8)


def doubled(pixels: np.ndarray) -> np.ndarray:
    return pixels.repeat(2, 0).repeat(2, 1).astype(np.float32)


@pytest.mark.parametrize("size", [(1, 1), (64, 64), (65, 64), (150, 90), (500, 33)])
def test_tiles_cover_the_picture_and_overlap(size) -> None:
    """Each pixel is in one at least, none sticks out, and neighbours share the overlap at least."""
    width, height = size
    seen = np.zeros((height, width), int)
    for tile in (tiles := tiles_of(width, height, 64, 16)):
        assert tile.top + tile.height <= height
        assert tile.left + tile.width <= width
        seen[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width] += 1
    assert seen.min() == 1
    for side, starts in ((width, {tile.left for tile in tiles}), (height, {tile.top for tile in tiles})):
        ordered = sorted(starts)
        assert all(after - before <= 48 for before, after in itertools.pairwise(ordered))
        assert (len(ordered) == 1) == (side <= 64)


def test_what_needs_no_neighbours_is_the_whole_picture() -> None:
    """A network that looks at one pixel gives the same in tiles, to the bit; each tile is told."""
    told = []
    large = upscaled(RANDOM, doubled, 2, on_tile=lambda *seen: told.append(seen), tile=64, overlap=16)
    assert np.array_equal(large, doubled(RANDOM).astype(np.uint8))
    assert told == [(tile, 6) for tile in range(1, 7)]


def test_edges_of_tiles_leave_no_trace() -> None:
    """What is wrong within a quarter of the overlap of a tile's edge, as padding makes it, is not used."""

    def wrong_at_edges(pixels: np.ndarray) -> np.ndarray:
        answer = doubled(pixels)
        inner = answer[8:-8, 8:-8].copy()
        answer[:] = 999.0
        answer[8:-8, 8:-8] = inner
        return answer

    large = upscaled(RANDOM, wrong_at_edges, 2, tile=64, overlap=16)
    assert np.array_equal(large[8:-8, 8:-8], doubled(RANDOM)[8:-8, 8:-8].astype(np.uint8))


def test_one_tile_fades_into_the_next() -> None:
    """Two tiles that answer black and white meet in a ramp that only rises, without a step."""
    answers = iter([0.0, 255.0])

    def flat(pixels: np.ndarray) -> np.ndarray:
        return np.full(pixels.shape, next(answers), np.float32)

    row = upscaled(np.zeros((8, 112, 3), np.uint8), flat, 1, tile=64, overlap=16)[0, :, 0].astype(int)
    assert (row[:52].max(), row[60:].min()) == (0, 255)
    assert np.all(np.diff(row) >= 0)
    assert np.diff(row).max() <= 32


def test_what_is_told_may_end_the_work() -> None:
    """No further tile is drawn."""
    drawn = []

    def counted(pixels: np.ndarray) -> np.ndarray:
        drawn.append(pixels.shape)
        return doubled(pixels)

    def stop(tile: int, _count: int) -> None:
        if tile == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        upscaled(RANDOM, counted, 2, on_tile=stop, tile=64, overlap=16)
    assert len(drawn) == 2
