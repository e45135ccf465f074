"""Schedulers of diffusers, mended where their steps follow other timesteps or noise than their schedule's."""

from __future__ import annotations

import diffusers
import numpy as np
import torch
from diffusers.utils.torch_utils import randn_tensor


class Ddim(diffusers.DDIMScheduler):  # type: ignore[misc]
    """DDIM whose steps lead to the next timestep of the schedule.

    diffusers' own lead back by a fixed number of timesteps, which is right for leading spacing only. The last
    step leads to the signal before timestep 0, the configuration's `set_alpha_to_one`.
    """

    def step(
        self,
        model_output: torch.Tensor,
        timestep: torch.Tensor,
        sample: torch.Tensor,
        eta: float = 0.0,
        generator: list[torch.Generator] | None = None,
        return_dict: bool = False,  # noqa: ARG002 - diffusers' own argument
    ) -> tuple[torch.Tensor, ...]:
        """Formulas (12) and (16) of https://arxiv.org/abs/2010.02502; `[n, 4, h, w]` in and out."""
        alpha, alpha_next = self.alphas_cumprod[timestep], self._next_alpha(timestep)
        clean, noise = self._clean_and_noise(model_output, alpha, sample)
        variance = (1 - alpha_next) / (1 - alpha) * (1 - alpha / alpha_next)
        deviation = eta * variance**0.5
        direction = (1 - alpha_next - deviation**2) ** 0.5 * noise
        stepped = alpha_next**0.5 * clean + direction
        if eta > 0:
            fresh = randn_tensor(sample.shape, generator=generator, device=sample.device, dtype=sample.dtype)
            stepped = stepped + deviation * fresh
        return stepped, clean

    def _next_alpha(self, timestep: torch.Tensor) -> torch.Tensor:
        index = int((self.timesteps == timestep).nonzero()[0]) + 1
        ends = index == len(self.timesteps)
        alpha: torch.Tensor = self.final_alpha_cumprod if ends else self.alphas_cumprod[self.timesteps[index]]
        return alpha

    def _clean_and_noise(
        self, prediction: torch.Tensor, alpha: torch.Tensor, sample: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        beta = 1 - alpha
        kind = self.config.prediction_type
        if kind == "v_prediction":
            clean = alpha**0.5 * sample - beta**0.5 * prediction
            noise = alpha**0.5 * prediction + beta**0.5 * sample
        elif kind == "sample":
            clean, noise = prediction, (sample - alpha**0.5 * prediction) / beta**0.5
        else:
            clean, noise = (sample - beta**0.5 * prediction) / alpha**0.5, prediction
        if self.config.thresholding:
            clean = self._threshold_sample(clean)
        elif self.config.clip_sample:
            clean = clean.clamp(-self.config.clip_sample_range, self.config.clip_sample_range)
        return clean, noise


class Plms(diffusers.PNDMScheduler):  # type: ignore[misc]
    """PNDM without its Runge-Kutta steps, along any timesteps, from any of them.

    Its first step is Heun's: the second timestep is visited twice, the second time to take the first step
    again. diffusers' own class does so for the whole schedule only: an image-to-image call, which begins
    later, takes this second visit for one at the timestep after it. `visit` comes before everything else.
    """

    def visit(self, timesteps: np.ndarray) -> None:
        """Take `timesteps`, the noisiest first, as the schedule."""
        self._falling = torch.from_numpy(timesteps.astype(np.int64))
        self.prk_timesteps = np.array([])
        self.timesteps = self.timesteps_from(0)

    def timesteps_from(self, begin: int) -> torch.Tensor:
        """Begin at step `begin`; return the timesteps to visit."""
        falling = self._falling[begin:]
        self._moves = [*falling.tolist(), -1]
        return torch.cat([falling[:2], falling[1:]]) if len(falling) > 1 else falling

    def step(
        self,
        model_output: torch.Tensor,
        timestep: torch.Tensor,
        sample: torch.Tensor,
        return_dict: bool = False,  # noqa: ARG002 - diffusers' own argument
    ) -> tuple[torch.Tensor, ...]:
        """Mix predictions of the noise: diffusers' own class mixes whatever the model predicts."""
        if self.config.prediction_type == "v_prediction":
            alpha = self.alphas_cumprod[timestep]
            model_output = alpha**0.5 * model_output + (1 - alpha) ** 0.5 * sample
        stepped: tuple[torch.Tensor, ...] = super().step(model_output, timestep, sample, return_dict=False)
        return stepped

    def _get_prev_sample(
        self, sample: torch.Tensor, timestep: int, prev_timestep: int, model_output: torch.Tensor
    ) -> torch.Tensor:
        """Lead along the schedule instead of by a fixed number of timesteps: formula (9), a step of DDIM."""
        del timestep, prev_timestep  # those of a fixed number of timesteps
        at = max(self.counter - 1, 0)
        here, there = self._moves[at], self._moves[at + 1]
        alpha = self.alphas_cumprod[here]
        alpha_next = self.alphas_cumprod[there] if there >= 0 else self.final_alpha_cumprod
        clean = (sample - (1 - alpha) ** 0.5 * model_output) / alpha**0.5
        stepped: torch.Tensor = alpha_next**0.5 * clean + (1 - alpha_next) ** 0.5 * model_output
        return stepped


class Lms(diffusers.LMSDiscreteScheduler):  # type: ignore[misc]
    """LMS whose order grows with the slopes that are known.

    diffusers' own class goes by the place in the schedule: an image-to-image call, which begins later, gets
    the weights of slopes that there are none of, which are then left out.
    """

    def step(
        self,
        model_output: torch.Tensor,
        timestep: torch.Tensor,
        sample: torch.Tensor,
        order: int = 4,
        return_dict: bool = False,  # noqa: ARG002 - diffusers' own argument
    ) -> tuple[torch.Tensor, ...]:
        """As diffusers; `sample_lms` of k-diffusion."""
        order = min(len(self.derivatives) + 1, order)
        stepped: tuple[torch.Tensor, ...] = super().step(
            model_output, timestep, sample, order, return_dict=False
        )
        return stepped


class EulerAncestral(diffusers.EulerAncestralDiscreteScheduler):  # type: ignore[misc]
    """Ancestral sampling with Euler steps, with noise levels from outside and k-diffusion's `eta`."""

    def visit(self, sigmas: np.ndarray, timesteps: np.ndarray) -> None:
        """Take falling `sigmas` at `timesteps` as the schedule; after the last no noise is left."""
        self.sigmas = torch.from_numpy(np.append(sigmas, 0.0).astype(np.float32))
        self.timesteps = torch.from_numpy(timesteps.astype(np.float32))
        self.num_inference_steps = len(timesteps)

    def step(
        self,
        model_output: torch.Tensor,
        timestep: torch.Tensor,
        sample: torch.Tensor,
        generator: list[torch.Generator] | None = None,
        return_dict: bool = False,  # noqa: ARG002 - diffusers' own argument
        eta: float = 1.0,
    ) -> tuple[torch.Tensor, ...]:
        """As diffusers, whose eta is 1; otherwise `sample_euler_ancestral` of k-diffusion."""
        if eta == 1:
            stepped: tuple[torch.Tensor, ...] = super().step(
                model_output, timestep, sample, generator=generator, return_dict=False
            )
            return stepped
        if self.step_index is None:
            self._init_step_index(timestep)
        sigma, sigma_next = self.sigmas[self.step_index], self.sigmas[self.step_index + 1]
        down, up = ancestral(sigma, sigma_next, eta)
        if self.config.prediction_type == "v_prediction":
            clean = model_output * (-sigma / (sigma**2 + 1) ** 0.5) + sample / (sigma**2 + 1)
        else:
            clean = sample - sigma * model_output
        noise = randn_tensor(sample.shape, generator=generator, device=sample.device, dtype=sample.dtype)
        self._step_index += 1
        return sample + (sample - clean) / sigma * (down - sigma) + noise * up, clean


class Kdpm2Ancestral(diffusers.KDPM2AncestralDiscreteScheduler):  # type: ignore[misc]
    """Ancestral sampling with steps of the second order and k-diffusion's `eta`, set before the timesteps."""

    eta: float | None = None
    dtype = torch.float32

    def set_timesteps(
        self,
        num_inference_steps: int,
        device: torch.device | None = None,
        num_train_timesteps: int | None = None,
    ) -> None:
        """As diffusers; with another eta, or in float64, as `sample_dpm_2_ancestral` of k-diffusion."""
        super().set_timesteps(num_inference_steps, device, num_train_timesteps)
        if self.eta in (None, 1) and self.dtype is torch.float32:
            return
        sigmas = torch.cat([self.sigmas[:1], self.sigmas[1::2]])[:num_inference_steps].double()
        sigmas_next = torch.cat([sigmas[1:], torch.zeros(1)])
        down, up = ancestral(sigmas, sigmas_next, 1.0 if self.eta is None else self.eta)
        between = (sigmas.log().lerp(down.log(), 0.5)).exp()
        between[-1] = 0.0
        for name, values in (("sigmas_up", up), ("sigmas_down", down), ("sigmas_interpol", between)):
            padded = torch.cat([values, torch.zeros(1)])
            spread = torch.cat([padded[:1], padded[1:].repeat_interleave(2), padded[-1:]])
            setattr(self, name, spread.to(self.dtype))
        log_sigmas = self.log_sigmas.numpy()
        visited = np.array([self._sigma_to_t(one, log_sigmas) for one in between[:-1].numpy()])
        self.timesteps[1::2] = torch.from_numpy(visited).to(self.timesteps.dtype)


def ancestral(sigma: torch.Tensor, sigma_next: torch.Tensor, eta: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The level to step down to and the deviation of the noise that then leads to `sigma_next`.

    Source: `get_ancestral_step` of k-diffusion.
    """
    whole = (sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2) ** 0.5
    up = torch.minimum(sigma_next, eta * whole)
    return (sigma_next**2 - up**2) ** 0.5, up
