"""One schedule run by ours in float32 and by the reference in float64, with the same model and noise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sdgrpc.diffusion.prompts.conditioning import Conditioning
from sdgrpc.diffusion.sampling import schedulers
from sdgrpc.diffusion.sampling.clean_latents import CleanLatents
from sdgrpc.diffusion.sampling.denoise import Start, StepResult, always, denoise
from sdgrpc.diffusion.sampling.noise import generator
from sdgrpc.diffusion.sampling.step_spacing import Schedule
from sdgrpc.domain import Scheduler, SigmaSpacing, TimestepSpacing
from tests.support.float64 import chains, levels, solvers

SHAPE = (1, 4, 6, 6)
SOLVERS = {
    Scheduler.EULER: solvers.euler,
    Scheduler.EULER_ANCESTRAL: solvers.euler_ancestral,
    Scheduler.HEUN: solvers.heun,
    Scheduler.LMS: solvers.lms,
    Scheduler.KDPM2: solvers.dpm_2,
    Scheduler.KDPM2_ANCESTRAL: solvers.dpm_2_ancestral,
    Scheduler.DPMPP_2M: solvers.dpmpp_2m,
    Scheduler.DPMPP_2M_SDE: solvers.dpmpp_2m_sde,
    Scheduler.DPMPP_SDE: solvers.dpmpp_sde,
    Scheduler.UNIPC: solvers.unipc,
    Scheduler.DEIS: solvers.deis,
}
CHAINS = {
    Scheduler.DDIM: chains.ddim,
    Scheduler.DDPM: chains.ddpm,
    Scheduler.PNDM: chains.plms,
    Scheduler.LCM: chains.lcm,
    Scheduler.TCD: chains.tcd,
}
VARIANCE_PRESERVING = {*levels.DPM, *CHAINS}
"""Whose latents diffusers keeps scaled to a variance of 1; the others' noise has the deviation sigma."""


def network(x: np.ndarray, timestep: float) -> np.ndarray:
    """A made-up model: smooth in the latents, and another function at each timestep."""
    return 0.3 * np.tanh(x + np.sin(timestep / 150)) + 0.4 * x + 0.1 * math.cos(timestep / 90)


@dataclass(frozen=True)
class Case:
    """A schedule under a model's configuration; `step_count` below the steps begins from clean latents."""

    config: Mapping[str, Any]
    scheduler: Scheduler
    schedule: Schedule
    step_count: int

    @property
    def kind(self) -> str:
        """What the model predicts."""
        return str(self.config["prediction_type"])

    @property
    def transforms(self) -> bool:
        """Whether it begins from clean latents."""
        return self.step_count < self.schedule.steps


@dataclass(frozen=True)
class Run:
    """What a run came to: timesteps asked of the model, latents, and each step's clean ones."""

    visited: list[float]
    latents: np.ndarray
    previews: list[np.ndarray]


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Generator]:
    """Clean latents, the first noise, and the generator of what a scheduler draws."""
    drawn = generator(3)
    return torch.randn(SHAPE, generator=drawn), torch.randn(SHAPE, generator=drawn), drawn


def ours(case: Case) -> Run:
    """Run the denoising loop of jobs."""
    clean, noise, drawn = inputs()
    built = schedulers.build(case.config, case.scheduler, case.schedule)
    timesteps = schedulers.denoising_timesteps(built, case.schedule.steps, case.step_count)
    latents = noise * built.init_noise_sigma
    if case.transforms:
        latents = built.add_noise(clean, noise, timesteps[:1])
    start = Start(
        scheduler=built,
        timesteps=timesteps,
        steps=case.schedule.steps,
        step_count=case.step_count,
        latents=latents.to(schedulers.latents_dtype(case.config, case.scheduler)),
        generators=[drawn],
        conditioning=always(Conditioning(torch.zeros(1, 1, 1))),
        guidance_scale=1.0,
        clean_latents=CleanLatents(case.config),
        eta=case.schedule.eta,
    )
    results: list[StepResult] = []
    job, visited, prediction = denoise(start, results.append), [], None
    while True:
        try:
            wanted = job.send(prediction)
        except StopIteration as stop:
            previews = [one.predict_clean().double().numpy() for one in results]
            return Run(visited, stop.value.double().numpy(), previews)
        visited.append(float(wanted.timestep))
        answer = network(wanted.sample.double().numpy(), visited[-1])
        prediction = torch.from_numpy(answer).float()


class Reference:
    """The same in float64; the model is asked at the timesteps `visited`, which are compared with its own."""

    def __init__(self, case: Case, visited: list[float]) -> None:
        self._case, self._visited = case, iter(visited)
        self._alphas = levels.alphas_of(case.config)
        self.sigmas = levels.sigmas_of(self._alphas)
        clean, noise, self._drawn = inputs()
        self._clean, self._first = clean.double().numpy(), noise.double().numpy()
        self.differences: list[float] = []

    def run(self) -> np.ndarray:
        """Return the final latents."""
        case = self._case
        if case.scheduler in CHAINS:
            return self._chain(case)
        steps, spacing = case.schedule.steps, case.schedule.sigmas
        if spacing is SigmaSpacing.DEFAULT or steps == 1:
            timesteps = levels.timesteps_of(case.scheduler, case.schedule.timesteps, steps, self.sigmas)
            aligns = case.schedule.timesteps is TimestepSpacing.ALIGN_YOUR_STEPS and steps > 1
            sigmas = np.interp(timesteps, np.arange(1000), self.sigmas)
            if aligns:
                sigmas = np.exp(np.interp(timesteps, np.arange(1000), np.log(self.sigmas)))
        else:
            sigmas = levels.spaced_sigmas(spacing, steps, self.sigmas[0], self.sigmas[-1])
        end = self.sigmas[0] if case.scheduler is Scheduler.DEIS else 0.0
        begin = steps - case.step_count
        sigmas = np.append(sigmas, end)[begin:]
        options = {} if case.schedule.eta is None else {"eta": case.schedule.eta}
        x = SOLVERS[case.scheduler](
            self._begin(sigmas[0]), sigmas, self._denoise, self._noise, begin=begin, steps=steps, **options
        )
        return x / math.sqrt(1 + end**2)

    def _begin(self, sigma: float) -> np.ndarray:
        if self._case.transforms:
            return self._clean + sigma * self._first
        leads = self._case.schedule.timesteps is TimestepSpacing.LEADING and self._case.schedule.steps > 1
        scaled = leads or self._case.scheduler in VARIANCE_PRESERVING
        return self._first * (math.sqrt(sigma**2 + 1) if scaled else sigma)

    def _chain(self, case: Case) -> np.ndarray:
        steps = case.schedule.steps
        timesteps = levels.timesteps_of(case.scheduler, case.schedule.timesteps, steps, self.sigmas)
        timesteps = timesteps[steps - case.step_count :]
        clamped = np.maximum(self._alphas, levels.SMALLEST if case.scheduler is Scheduler.PNDM else 0.0)
        end = 1.0 if case.scheduler is Scheduler.DDPM else self._alphas[0]
        alphas = [*(clamped[int(one)] for one in timesteps), end]
        x = self._first
        if case.transforms:
            x = math.sqrt(alphas[0]) * self._clean + math.sqrt(1 - alphas[0]) * self._first
        options = {"all_alphas": clamped} if case.scheduler is Scheduler.TCD else {}

        def split(x: np.ndarray, timestep: float) -> tuple[np.ndarray, np.ndarray]:
            return self._split(x, timestep, clamped[int(timestep)])

        eta = case.schedule.eta or 0.0
        return CHAINS[case.scheduler](x, timesteps, alphas, split, self._noise, eta, **options)

    def _denoise(self, x: np.ndarray, sigma: float) -> np.ndarray:
        alpha = 1 / (1 + sigma**2)
        timestep = float(levels.timestep_of(sigma, self.sigmas))
        return self._split(x * math.sqrt(alpha), timestep, alpha)[0]

    def _split(self, x: np.ndarray, timestep: float, alpha: float) -> tuple[np.ndarray, np.ndarray]:
        """The clean sample and the noise of what the model says."""
        asked = next(self._visited)
        self.differences.append(abs(asked - timestep))
        told, signal, noise = network(x, asked), math.sqrt(alpha), math.sqrt(1 - alpha)
        if self._case.kind == "v_prediction":
            return signal * x - noise * told, signal * told + noise * x
        if self._case.kind == "sample":
            return told, (x - signal * told) / noise
        return (x - noise * told) / signal, told

    def _noise(self) -> np.ndarray:
        return torch.randn(SHAPE, generator=self._drawn).double().numpy()
