"""Noise from a seed, made a second time as the contract says: with numpy's Mersenne Twister and formulas."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from sdgrpc.diffusion.sampling.noise import generator

SEEDS = [0, 7, 2**32 - 1, 2**32, 2**32 + 7, 2**40 + 5, 2**62, 2**63 - 1]


def as_the_contract_says(seed: int, count: int) -> np.ndarray:
    """`count` values, 16 at least, of a new generator: the comment of `Sampling.seed` line by line."""
    key = seed if seed < 2**32 else [seed % 2**32, seed // 2**32]
    twister = np.random.RandomState(key)

    def uniform(size: int) -> np.ndarray:
        words = twister.randint(0, 2**32, size=size, dtype=np.uint32)
        return (words & (2**24 - 1)).astype(np.float64) / 2**24

    values = uniform(count)
    for begin in range(0, count - 15, 16):
        values[begin : begin + 16] = normal(values[begin : begin + 16])
    if count % 16:
        values[-16:] = normal(uniform(16))
    return values


def normal(uniform: np.ndarray) -> np.ndarray:
    radius = np.sqrt(-2 * np.log(1 - uniform[:8]))
    angle = 2 * np.pi * uniform[8:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("shape", [(1, 4, 8, 8), (1, 4, 5, 3), (1, 4, 12, 13)])
def test_noise_is_what_the_contract_says(seed: int, shape: tuple[int, ...]) -> None:
    """Within float32's rounding of values up to 6, whole blocks of 16 or not."""
    drawn = torch.randn(shape, generator=generator(seed)).flatten().numpy()
    assert np.abs(drawn - as_the_contract_says(seed, drawn.size)).max() <= 2e-6


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**32 - 1])
def test_seeds_below_two_to_the_32_are_torchs_own(seed: int) -> None:
    """Their pictures stay what they were."""
    theirs = torch.randn(64, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(torch.randn(64, generator=generator(seed)), theirs)


def test_longer_seeds_are_pythons() -> None:
    """The start of a longer seed is that of Python's `random`, too."""
    random.seed(2**40 + 5)
    word = random.getrandbits(32)
    drawn = torch.rand(1, generator=generator(2**40 + 5)).item()
    assert drawn == (word & (2**24 - 1)) / 2**24
