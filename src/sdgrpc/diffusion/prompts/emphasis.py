"""Weights of words: what the text encoder says of a token is multiplied, as A1111's web UI does it.

The web UI then multiplies each chunk by one number that gives it the mean it had. Where that mean is nearly
zero, as it can be in SDXL, the number can be anything, and pictures fall apart (the reason for the web UI's
setting "No norm"). Here the mean is restored only where it is a level: with weights between w and v the
number has to be between 1/v and 1/w; if it is not, terms happen to cancel each other, and the mean stays.
Source: https://github.com/AUTOMATIC1111/stable-diffusion-webui/wiki/Features, "Attention/emphasis".
"""

from __future__ import annotations

import math

from torch import Tensor

FAINT = 1e-3
"""A mean below this share of the standard deviation is rounding."""


def emphasised(hidden: Tensor, weights: Tensor) -> Tensor:
    """Weigh tokens; a chunk whose weights are all 1 keeps its bits.

    Args:
        hidden: what a text encoder gives for chunks, `[n, T, D]`. It is not written.
        weights: `[n, T]` float32 on the CPU; those of begin, end and padding are 1.

    """
    weighed = (weights != 1).any(dim=1).tolist()
    if not any(weighed):
        return hidden
    result = hidden.clone()
    for row in (row for row, wanted in enumerate(weighed) if wanted):
        before = hidden[row].float()
        after = before * weights[row].to(hidden.device)[:, None]
        result[row] = after * restoring(before, after, weights[row])
    return result


def restoring(before: Tensor, after: Tensor, weights: Tensor) -> float:
    """Return the number that gives `after` the mean of `before`; 1 where that mean is no level."""
    means = [float(values.mean()) for values in (before, after)]
    spreads = [float(values.std()) for values in (before, after)]
    if any(abs(mean) <= FAINT * spread for mean, spread in zip(means, spreads, strict=True)):
        return 1.0
    ratio = means[0] / means[1]
    least, most = float(weights.min()), float(weights.max())
    highest = 1 / least if least > 0 else math.inf
    return ratio if 1 / most <= ratio <= highest else 1.0
