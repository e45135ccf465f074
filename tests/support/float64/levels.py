"""Noise levels and timesteps by their definitions, in float64 and whole numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
from scipy import stats

from sdgrpc.domain import Scheduler, SigmaSpacing, TimestepSpacing

TRAIN_STEPS = 1000
SMALLEST = 2.0**-24
# Of https://research.nvidia.com/labs/toronto-ai/AlignYourSteps/howto.html, for SD1, and where they end.
ALIGNED_SD1 = (999, 850, 736, 645, 545, 455, 343, 233, 124, 24, 0)
# DPM solvers of diffusers count leading and linspace timesteps as if there were one more, and leave the last
# out.
DPM = {Scheduler.DPMPP_2M, Scheduler.DPMPP_2M_SDE, Scheduler.DPMPP_SDE, Scheduler.UNIPC, Scheduler.DEIS}
WHOLE = {Scheduler.DDIM, Scheduler.DDPM, Scheduler.PNDM, Scheduler.LCM, Scheduler.TCD}
OWN_SPACING = {
    Scheduler.DDIM: TimestepSpacing.LEADING,
    Scheduler.DDPM: TimestepSpacing.LEADING,
    Scheduler.PNDM: TimestepSpacing.LEADING,
}
"""Where a configuration names no spacing; all others are LINSPACE, LCM and TCD have their own."""


def alphas_of(config: Mapping[str, Any]) -> np.ndarray:
    """The signal's shares of Stable Diffusion's schedule; algorithm 1 of 2305.08891 rescales them."""
    betas = np.linspace(config["beta_start"] ** 0.5, config["beta_end"] ** 0.5, TRAIN_STEPS) ** 2
    alphas = np.cumprod(1 - betas)
    if config.get("rescale_betas_zero_snr"):
        roots = np.sqrt(alphas)
        roots = (roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])
        alphas = roots**2
    return alphas


def sigmas_of(alphas: np.ndarray) -> np.ndarray:
    """Sigmas as k-diffusion counts them; zero signal counts as the smallest that float16 has."""
    clamped = np.maximum(alphas, SMALLEST)
    return np.sqrt((1 - clamped) / clamped)


def timestep_of(sigma: np.ndarray | float, sigmas: np.ndarray) -> np.ndarray:
    """k-diffusion's `sigma_to_t`: linear in the logarithm of sigma."""
    return np.interp(np.log(sigma), np.log(sigmas), np.arange(TRAIN_STEPS))


def timesteps_of(
    scheduler: Scheduler, spacing: TimestepSpacing | None, steps: int, sigmas: np.ndarray
) -> list[float]:
    """Table 2 of 2305.08891 with offset 1, the noisiest first; a single step is at the noisiest."""
    if steps == 1:
        return [TRAIN_STEPS - 1]
    if spacing is None and scheduler in (Scheduler.LCM, Scheduler.TCD):
        return [20.0 * (50 - 50 * i // steps) - 1 for i in range(steps)]  # of the 50 distilled ones
    spacing = spacing or OWN_SPACING.get(scheduler, TimestepSpacing.LINSPACE)
    count = steps + 1 if scheduler in DPM else steps
    if spacing is TimestepSpacing.LEADING:
        return [float(i * (TRAIN_STEPS // count) + 1) for i in range(count)][::-1][:steps]
    if spacing is TimestepSpacing.LINSPACE:
        exact = [Fraction(index * (TRAIN_STEPS - 1), count - 1) for index in range(count)][::-1][:steps]
        return [float(round(one)) if scheduler in DPM | WHOLE else float(one) for one in exact]
    if spacing is TimestepSpacing.TRAILING:
        return [float(round(TRAIN_STEPS - Fraction(i * TRAIN_STEPS, steps)) - 1) for i in range(steps)]
    levels = np.log(sigmas[list(ALIGNED_SD1)])
    between = [np.interp(10 * index / steps, np.arange(11), levels) for index in range(steps)]
    exact_timesteps = timestep_of(np.exp(between), sigmas)
    if scheduler in WHOLE:
        return [float(round(one)) for one in exact_timesteps]
    return list(exact_timesteps)


def spaced_sigmas(spacing: SigmaSpacing, steps: int, low: float, high: float) -> np.ndarray:
    """Falling sigmas from `high` to `low`: k-diffusion's Karras (rho 7) and exponential, beta(0.6, 0.6)."""
    ramp = np.linspace(0, 1, steps) if steps > 1 else np.zeros(1)
    if spacing is SigmaSpacing.KARRAS:
        return (high ** (1 / 7) + ramp * (low ** (1 / 7) - high ** (1 / 7))) ** 7
    if spacing is SigmaSpacing.EXPONENTIAL:
        return np.exp(math.log(high) + ramp * (math.log(low) - math.log(high)))
    return low + stats.beta.ppf(1 - ramp, 0.6, 0.6) * (high - low)
