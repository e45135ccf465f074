"""The contract's spacings of timesteps: where the steps of a schedule are."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sdgrpc.diffusion.sampling.training_sigmas import NoiseLevels

# The timesteps of ten steps and where they end, of https://arxiv.org/abs/2404.14507: the published tables of
# https://research.nvidia.com/labs/toronto-ai/AlignYourSteps/howto.html, whose noise levels these have.
ALIGNED: Mapping[bool, tuple[int, ...]] = {
    False: (999, 850, 736, 645, 545, 455, 343, 233, 124, 24, 0),
    True: (999, 845, 730, 587, 443, 310, 193, 116, 53, 13, 0),
}
TABLE_TRAIN_STEPS = 1000


def leading(steps: int, train_steps: int, offset: int) -> np.ndarray:
    """Whole timesteps, the noisiest first, counted from the end without noise."""
    return (np.arange(steps) * (train_steps // steps))[::-1] + offset


def trailing(steps: int, train_steps: int) -> np.ndarray:
    """Whole timesteps counted from the noisiest, which is the first.

    Source: diffusers, to the last bit of its rounding; but its own count of them is one too many for 61, 103,
    121 and 122 steps.
    """
    return np.arange(train_steps, 0, -train_steps / steps).round().astype(np.int64)[:steps] - 1


def linspace(steps: int, train_steps: int) -> np.ndarray:
    """Whole timesteps from one end to the other."""
    return np.linspace(0, train_steps - 1, steps).round()[::-1].astype(np.int64)


def aligned(levels: NoiseLevels, steps: int, *, is_sdxl: bool) -> np.ndarray:
    """The sigmas of "align your steps", from the model's largest down.

    For other numbers of steps than ten the logarithms are interpolated together with the table's end, which
    is then left out: after the last step no noise is left. Source: `loglinear_interp` of the how-to above.
    """
    table = np.array(ALIGNED[is_sdxl]) * ((len(levels.sigmas) - 1) / (TABLE_TRAIN_STEPS - 1))
    between = np.linspace(0, len(table) - 1, steps + 1)[:-1]
    timesteps = np.arange(len(levels.sigmas))
    logarithms = np.interp(table, timesteps, np.log(levels.sigmas.astype(np.float64)))
    sigmas = np.exp(np.interp(between, np.arange(len(table)), logarithms))
    return np.clip(sigmas, levels.sigmas[0], levels.sigmas[-1])


def whole(levels: NoiseLevels, sigmas: np.ndarray) -> np.ndarray:
    """The nearest whole timesteps of falling sigmas, each another one."""
    nearest = levels.timestep(sigmas).round().astype(np.int64)
    free = np.arange(len(sigmas))[::-1]
    # From the end without noise upwards none may be below the one after it: steps differ by one at least.
    return np.maximum.accumulate((nearest - free)[::-1])[::-1] + free
