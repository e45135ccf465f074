"""The clean latents that a prediction stands for, for previews of every scheduler."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from sdgrpc.diffusion.sampling.training_sigmas import SMALLEST_ALPHA, alphas_cumprod


class CleanLatents:
    """Predicts clean latents from what the UNet saw and said.

    Every scheduler of the contract scales its latents so that the UNet sees
    `x = sqrt(a) x0 + sqrt(1 - a) noise` with `a` of the timestep, however it keeps them itself; so one
    formula serves them all. Timesteps between two training steps interpolate the logarithm of sigma, as
    k-diffusion does.
    """

    def __init__(self, scheduler_config: Mapping[str, Any]) -> None:
        alphas = alphas_cumprod(scheduler_config).double().clamp(min=SMALLEST_ALPHA)
        self._log_sigmas = (((1 - alphas) / alphas).log() / 2).tolist()
        self._prediction_type = scheduler_config.get("prediction_type", "epsilon")

    def __call__(
        self, sample: torch.Tensor, timestep: torch.Tensor | float, prediction: torch.Tensor
    ) -> torch.Tensor:
        """Clean latents from the UNet's input `sample` (the latent channels), timestep and prediction."""
        alpha = self.alpha(float(timestep))
        signal, noise = alpha**0.5, (1 - alpha) ** 0.5
        if self._prediction_type == "sample":
            return prediction
        if self._prediction_type == "v_prediction":
            return torch.sub(signal * sample, noise * prediction)
        return torch.sub(sample, noise * prediction).div(signal)

    def alpha(self, timestep: float) -> float:
        """The cumulative product of alpha at a timestep, which may lie between two training steps."""
        last = len(self._log_sigmas) - 1
        clamped = min(max(timestep, 0.0), float(last))
        below = min(int(clamped), last - 1)
        share = clamped - below
        log_sigma = (1 - share) * self._log_sigmas[below] + share * self._log_sigmas[below + 1]
        return 1 / (1 + math.exp(2 * log_sigma))
