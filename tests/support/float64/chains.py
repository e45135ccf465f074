# ruff: noqa: ARG001 - all have one signature
"""Samplers that go from timestep to timestep: `x = sqrt(a) x0 + sqrt(1 - a) noise`, whole timesteps.

`split(x, timestep)` is what the model predicts for `x`: the clean sample and the noise. `alphas` are the
signal's shares of the timesteps and, last, of the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

Split = Callable[[np.ndarray, float], tuple[np.ndarray, np.ndarray]]
Noise = Callable[[], np.ndarray]


def ddim(
    x: np.ndarray, t: Sequence[float], alphas: Sequence[float], split: Split, noise: Noise, eta: float
) -> np.ndarray:
    """Formula (12) of https://arxiv.org/abs/2010.02502."""
    for i, timestep in enumerate(t):
        a, b = alphas[i], alphas[i + 1]
        clean, predicted = split(x, timestep)
        deviation = eta * math.sqrt((1 - b) / (1 - a) * (1 - a / b))
        x = math.sqrt(b) * clean + math.sqrt(max(1 - b - deviation**2, 0)) * predicted
        if eta > 0:
            x = x + deviation * noise()
    return x


def ddpm(
    x: np.ndarray, t: Sequence[float], alphas: Sequence[float], split: Split, noise: Noise, eta: float
) -> np.ndarray:
    """Formulas (6) and (7) of https://arxiv.org/abs/2006.11239; the end is without noise."""
    for i, timestep in enumerate(t):
        a, b = alphas[i], alphas[i + 1]
        clean, _ = split(x, timestep)
        beta = 1 - a / b
        x = math.sqrt(b) * beta / (1 - a) * clean + math.sqrt(a / b) * (1 - b) / (1 - a) * x
        if timestep > 0:
            x = x + math.sqrt((1 - b) / (1 - a) * beta) * noise()
    return x


def plms(
    x: np.ndarray, t: Sequence[float], alphas: Sequence[float], split: Split, noise: Noise, eta: float
) -> np.ndarray:
    """PLMS of https://arxiv.org/abs/2202.09778 with Heun's step first; formula (9) is a DDIM step."""

    def moved(x: np.ndarray, i: int, predicted: np.ndarray) -> np.ndarray:
        a, b = alphas[i], alphas[i + 1]
        clean = (x - math.sqrt(1 - a) * predicted) / math.sqrt(a)
        return math.sqrt(b) * clean + math.sqrt(1 - b) * predicted

    told = [split(x, t[0])[1]]
    there = moved(x, 0, told[0])
    if len(t) == 1:
        return there
    second = split(there, t[1])[1]
    x = moved(x, 0, (told[0] + second) / 2)
    weights = {2: (3, -1), 3: (23, -16, 5), 4: (55, -59, 37, -9)}
    for i in range(1, len(t)):
        told.append(split(x, t[i])[1])
        chosen = weights[min(len(told), 4)]
        mixed = sum(w * told[-1 - k] for k, w in enumerate(chosen)) / sum(chosen)
        x = moved(x, i, mixed)
    return x


def lcm(
    x: np.ndarray, t: Sequence[float], alphas: Sequence[float], split: Split, noise: Noise, eta: float
) -> np.ndarray:
    """Algorithm 3 of https://arxiv.org/abs/2310.04378, timesteps scaled by 10, deviation of the data 0.5."""
    for i, timestep in enumerate(t):
        clean, _ = split(x, timestep)
        scaled = 10 * timestep
        kept = 0.25 / (scaled**2 + 0.25)
        x = scaled / math.sqrt(scaled**2 + 0.25) * clean + kept * x
        if i + 1 < len(t):
            x = math.sqrt(alphas[i + 1]) * x + math.sqrt(1 - alphas[i + 1]) * noise()
    return x


def tcd(
    x: np.ndarray,
    t: Sequence[float],
    alphas: Sequence[float],
    split: Split,
    noise: Noise,
    eta: float,
    all_alphas: np.ndarray,
) -> np.ndarray:
    """Strategic stochastic sampling of https://arxiv.org/abs/2402.19159; `eta` is its gamma."""
    for i, timestep in enumerate(t):
        following = t[i + 1] if i + 1 < len(t) else 0
        clean, predicted = split(x, timestep)
        a = all_alphas[math.floor((1 - eta) * following)]
        x = math.sqrt(a) * clean + math.sqrt(1 - a) * predicted
        if eta > 0 and i + 1 < len(t):
            b = all_alphas[int(following)]
            x = math.sqrt(b / a) * x + math.sqrt(1 - b / a) * noise()
    return x
