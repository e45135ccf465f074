# ruff: noqa: ARG001 - all have one signature
"""Multistep and other solvers in sigma's space: `x = x0 + sigma noise`, falling sigmas, the last may be 0.

`denoise(x, index, stage)` is the clean sample that the model predicts for `x` at the level `index`, or at
`sigma` where it is given. `noise()` draws the next standard normal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy import integrate

Denoise = Callable[..., np.ndarray]
Noise = Callable[[], np.ndarray]


def euler(x: np.ndarray, s: np.ndarray, denoise: Denoise, noise: Noise, **_: float) -> np.ndarray:
    """`sample_euler` of k-diffusion."""
    for i in range(len(s) - 1):
        x = x + (x - denoise(x, s[i])) / s[i] * (s[i + 1] - s[i])
    return x


def split(sigma: float, sigma_next: float, eta: float) -> tuple[float, float]:
    """`get_ancestral_step` of k-diffusion."""
    up = min(sigma_next, eta * math.sqrt(sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2))
    return math.sqrt(sigma_next**2 - up**2), up


def euler_ancestral(
    x: np.ndarray, s: np.ndarray, denoise: Denoise, noise: Noise, eta: float = 1.0, **_: float
) -> np.ndarray:
    """`sample_euler_ancestral` of k-diffusion."""
    for i in range(len(s) - 1):
        down, up = split(s[i], s[i + 1], eta)
        x = x + (x - denoise(x, s[i])) / s[i] * (down - s[i]) + up * noise()
    return x


def heun(x: np.ndarray, s: np.ndarray, denoise: Denoise, noise: Noise, **_: float) -> np.ndarray:
    """`sample_heun` of k-diffusion without churn; algorithm 1 of https://arxiv.org/abs/2206.00364."""
    for i in range(len(s) - 1):
        d = (x - denoise(x, s[i])) / s[i]
        dt = s[i + 1] - s[i]
        if s[i + 1] > 0:
            there = x + d * dt
            d = (d + (there - denoise(there, s[i + 1])) / s[i + 1]) / 2
        x = x + d * dt
    return x


def dpm_2(x: np.ndarray, s: np.ndarray, denoise: Denoise, noise: Noise, **_: float) -> np.ndarray:
    """`sample_dpm_2` of k-diffusion without churn."""
    for i in range(len(s) - 1):
        d = (x - denoise(x, s[i])) / s[i]
        if s[i + 1] > 0:
            middle = math.sqrt(s[i] * s[i + 1])
            between = x + d * (middle - s[i])
            d = (between - denoise(between, middle)) / middle
        x = x + d * (s[i + 1] - s[i])
    return x


def dpm_2_ancestral(
    x: np.ndarray, s: np.ndarray, denoise: Denoise, noise: Noise, eta: float = 1.0, **_: float
) -> np.ndarray:
    """`sample_dpm_2_ancestral` of k-diffusion."""
    for i in range(len(s) - 1):
        down, up = split(s[i], s[i + 1], eta)
        d = (x - denoise(x, s[i])) / s[i]
        if down > 0:
            middle = math.sqrt(s[i] * down)
            between = x + d * (middle - s[i])
            d = (between - denoise(between, middle)) / middle
        x = x + d * (down - s[i])
        if s[i + 1] > 0:
            x = x + up * noise()
    return x


def lms(x: np.ndarray, s: np.ndarray, denoise: Denoise, noise: Noise, **_: float) -> np.ndarray:
    """`sample_lms` of k-diffusion, order 4: Lagrange's polynomials are integrated exactly."""
    slopes: list[np.ndarray] = []
    for i in range(len(s) - 1):
        slopes.append((x - denoise(x, s[i])) / s[i])
        known = min(4, len(slopes))
        nodes = [s[i - k] for k in range(known)]
        for k in range(known):
            others = [node for j, node in enumerate(nodes) if j != k]
            polynomial = (
                np.polynomial.Polynomial.fromroots(others) if others else np.polynomial.Polynomial([1.0])
            )
            integral = (polynomial / math.prod(nodes[k] - node for node in others)).integ()
            x = x + (integral(s[i + 1]) - integral(s[i])) * slopes[-1 - k]
    return x


def dpmpp_2m(x: np.ndarray, s: np.ndarray, denoise: Denoise, noise: Noise, **_: float) -> np.ndarray:
    """`sample_dpmpp_2m` of k-diffusion; algorithm 2 of https://arxiv.org/abs/2211.01095."""
    before: np.ndarray | None = None
    for i in range(len(s) - 1):
        clean = denoise(x, s[i])
        if s[i + 1] == 0:
            return clean
        h = math.log(s[i] / s[i + 1])
        mixed = clean
        if before is not None:
            r = math.log(s[i - 1] / s[i]) / h
            mixed = clean + (clean - before) / (2 * r)
        x = s[i + 1] / s[i] * x - math.expm1(-h) * mixed
        before = clean
    return x


def dpmpp_2m_sde(x: np.ndarray, s: np.ndarray, denoise: Denoise, noise: Noise, **_: float) -> np.ndarray:
    """`sample_dpmpp_2m_sde` of k-diffusion with eta 1 and the midpoint rule, noise anew for each step."""
    before: np.ndarray | None = None
    for i in range(len(s) - 1):
        clean, fresh = denoise(x, s[i]), noise()
        if s[i + 1] == 0:
            return clean
        h = math.log(s[i] / s[i + 1])
        mixed = clean
        if before is not None:
            mixed = clean + (clean - before) / (2 * math.log(s[i - 1] / s[i]) / h)
        x = _sde(x, s[i], s[i + 1], mixed, fresh)
        before = clean
    return x


def _sde(x: np.ndarray, s: float, s_next: float, clean: np.ndarray, fresh: np.ndarray) -> np.ndarray:
    """An exact step of the diffusion SDE for a constant prediction."""
    share = (s_next / s) ** 2
    return share * x + (1 - share) * clean + s_next * math.sqrt(1 - share) * fresh


def dpmpp_sde(
    x: np.ndarray, s: np.ndarray, denoise: Denoise, noise: Noise, begin: int = 0, **_: float
) -> np.ndarray:
    """SDE-DPM-Solver++ with pairs of steps: the second repeats the first's way with both predictions.

    `begin` is the index of the first level in the whole schedule, whose pairs stay where they are; the first
    step here and the last two are of the first order.
    """
    count = begin + len(s) - 1
    clean: list[np.ndarray] = []
    start = x
    for i in range(len(s) - 1):
        clean.append(denoise(x, s[i]))
        fresh, at = noise(), begin + i
        seconds = at % 2 == 1 and at < count - 1 and len(clean) > 1
        if not seconds:
            start, base, mixed = x, s[i], clean[-1]
        else:
            h, h0 = math.log(s[i - 1] / s[i + 1]), math.log(s[i - 1] / s[i])
            base, mixed = s[i - 1], clean[-2] + h / (2 * h0) * (clean[-1] - clean[-2])
        x = clean[-1] if s[i + 1] == 0 else _sde(start, base, s[i + 1], mixed, fresh)
    return x


def unipc(x: np.ndarray, s: np.ndarray, denoise: Denoise, noise: Noise, **_: float) -> np.ndarray:
    """UniPC of order 2, B(h) = e^h - 1, for predicted clean samples (https://arxiv.org/abs/2302.04867)."""
    levels = [-math.log(sigma) if sigma > 0 else math.inf for sigma in s]
    clean: list[np.ndarray] = []
    last, order = x, 0
    for i in range(len(s) - 1):
        now = denoise(x, s[i])
        if i > 0:
            x = _corrected(last, s, levels, i, [*clean[-order:], now], order)
        clean.append(now)
        order = min(2, len(s) - 1 - i, i + 1)
        last = x
        if s[i + 1] == 0:
            return now
        h = levels[i + 1] - levels[i]
        x = s[i + 1] / s[i] * x - math.expm1(-h) * now
        if order == 2:
            r = (levels[i - 1] - levels[i]) / h
            x = x - math.expm1(-h) * 0.5 * (clean[-2] - now) / r
    return x


def _corrected(
    x: np.ndarray, s: np.ndarray, levels: Sequence[float], i: int, clean: Sequence[np.ndarray], order: int
) -> np.ndarray:
    """UniC: the step to level i again, with the prediction there as well."""
    h = levels[i] - levels[i - 1]
    scale, now = math.expm1(-h), clean[-2]
    rest = 0.5 * (clean[-1] - now)
    if order == 2:
        r = (levels[i - 2] - levels[i - 1]) / h
        phi_2 = scale / -h - 1
        phi_3 = phi_2 / -h - 0.5
        weights = np.linalg.solve([[1, 1], [r, 1]], [phi_2 / scale, 2 * phi_3 / scale])
        rest = weights[0] * (clean[-3] - now) / r + weights[1] * (clean[-1] - now)
    return s[i] / s[i - 1] * x - scale * now - scale * rest


def deis(
    x: np.ndarray, s: np.ndarray, denoise: Denoise, noise: Noise, steps: int = 0, **_: float
) -> np.ndarray:
    """DEIS of order 2 in log rho (https://arxiv.org/abs/2204.13902), integrals by quadrature.

    With fewer than 15 `steps` the last is of the first order.
    """
    slopes: list[np.ndarray] = []
    for i in range(len(s) - 1):
        slopes.append((x - denoise(x, s[i])) / s[i])
        if len(slopes) == 1 or (i == len(s) - 2 and steps < 15):
            x = x + (s[i + 1] - s[i]) * slopes[-1]
            continue
        for slope, here, other in ((slopes[-1], s[i], s[i - 1]), (slopes[-2], s[i - 1], s[i])):
            weight = integrate.quad(
                lambda rho, here=here, other=other: math.log(rho / other) / math.log(here / other),
                s[i],
                s[i + 1],
            )[0]
            x = x + weight * slope
    return x
