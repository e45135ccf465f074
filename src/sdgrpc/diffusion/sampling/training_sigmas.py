"""A model's noise levels: the share of signal at each training timestep, and sigmas between them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import SchedulerMixin

# Latents are not bounded as pixels are, so clipping the predicted clean sample to [-1, 1] ruins them.
# Some classes clip unless told otherwise, and configurations saved from other classes do not say.
UNCLIPPED = {"clip_sample": False}
# The signal's share that zero-terminal-SNR schedules keep at the last timestep, as in diffusers.
SMALLEST_ALPHA = 2.0**-24


def alphas_cumprod(config: Mapping[str, Any]) -> torch.Tensor:
    """The model's cumulative products of alpha, `[training steps]`, float32; the last may be 0."""
    settings = {**UNCLIPPED, **config}
    products: torch.Tensor = diffusers.DDIMScheduler.from_config(settings).alphas_cumprod
    return products


class NoiseLevels:
    """Sigmas, `sqrt((1 - a) / a)` with `a` the signal's share, as k-diffusion counts noise.

    Between two training timesteps the logarithm of sigma is interpolated, as k-diffusion does.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        # In the dtypes in which diffusers' schedulers compute them, so that equal levels are equal numbers.
        alphas = alphas_cumprod(config).clamp(min=SMALLEST_ALPHA)
        self.sigmas: np.ndarray = np.array(((1 - alphas) / alphas) ** 0.5)
        self._log_sigmas = np.log(self.sigmas.astype(np.float64))

    def timestep(self, sigma: np.ndarray) -> np.ndarray:
        """The timesteps, perhaps between two training steps, that have these sigmas."""
        timesteps: np.ndarray = np.interp(np.log(sigma), self._log_sigmas, np.arange(len(self.sigmas)))
        return timesteps


def ends_without_signal(config: Mapping[str, Any]) -> bool:
    """Whether the noise schedule has zero terminal SNR (https://arxiv.org/abs/2305.08891)."""
    return bool(alphas_cumprod(config)[-1] < 2 * SMALLEST_ALPHA)


def rescale(scheduler: SchedulerMixin, config: Mapping[str, Any]) -> None:
    """Give a scheduler whose class has no `rescale_betas_zero_snr` the rescaled noise levels.

    Nothing changes unless `config` asks for it. The last signal is the smallest that diffusers' other classes
    use: these divide by it.
    """
    knows = "rescale_betas_zero_snr" in inspect.signature(type(scheduler).__init__).parameters
    if knows or not config.get("rescale_betas_zero_snr"):
        return
    alphas = alphas_cumprod(config).clamp(min=SMALLEST_ALPHA)
    scheduler.alphas_cumprod = alphas
    scheduler.alphas = torch.cat([alphas[:1], alphas[1:] / alphas[:-1]])
    scheduler.betas = 1 - scheduler.alphas
    if hasattr(scheduler, "final_alpha_cumprod") and not scheduler.config.set_alpha_to_one:
        scheduler.final_alpha_cumprod = alphas[0]
    if hasattr(scheduler, "lambda_t"):
        scheduler.alpha_t, scheduler.sigma_t = alphas.sqrt(), (1 - alphas).sqrt()
        scheduler.lambda_t = scheduler.alpha_t.log() - scheduler.sigma_t.log()
