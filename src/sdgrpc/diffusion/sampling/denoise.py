"""The denoising loop as a generator: it yields what it wants predicted and is sent the prediction."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from functools import partial

import torch
from diffusers import SchedulerMixin

from sdgrpc.diffusion.prompts.conditioning import Conditioning
from sdgrpc.diffusion.sampling.clean_latents import CleanLatents
from sdgrpc.diffusion.sampling.forecasting import Forecaster
from sdgrpc.diffusion.sampling.schedulers import step_arguments
from sdgrpc.domain import GuidanceInterval, StepReuse, Tiling
from sdgrpc.domain.tasks import asks_negative
from sdgrpc.machine.streams import read_here

NO_TILING = Tiling()


@dataclass(frozen=True, eq=False)
class ModelInput:
    """What one job wants the UNet to evaluate next.

    `sample` is `[n, C, h, w]` float32, scaled as the scheduler wants it, with C the UNet's input channels;
    `timestep` is a 0-dim tensor on the CPU. The job owns `sample` and will not change it.
    """

    sample: torch.Tensor
    timestep: torch.Tensor
    conditioning: Conditioning
    guidance_scale: float
    guidance_rescale: float = 0.0
    tiling: Tiling = NO_TILING

    @property
    def guided(self) -> bool:
        """Whether the UNet is asked about the negative prompt too; see `asks_negative`."""
        told = self.conditioning
        return told.negative is not None and asks_negative(self.guidance_scale, told.weights)

    @property
    def sides(self) -> int:
        """Rows of the UNet's batch that each image needs: one for each part, one for the negative prompt."""
        return len(self.conditioning.weights) + self.guided

    @property
    def rows(self) -> int:
        """Rows of the UNet's batch that this input needs."""
        return int(self.sample.shape[0]) * self.sides


Told = Callable[[int], Conditioning | None]
"""What the UNet is told in a step, from 0, of those that run; None as long as that is not there yet."""


def always(conditioning: Conditioning) -> Told:
    """Tell the same in every step."""
    return lambda _step: conditioning


def later(told: Told, steps: int) -> Told:
    """Tell what is told so many steps later: in a pass that follows them."""
    return lambda step: told(step + steps)


@dataclass(frozen=True, eq=False)
class StepResult:
    """One denoising step is done: step `step` (from 1) of `step_count`, at the scheduler's `timestep`.

    `predict_clean` computes the clean latents as predicted at this step, `[n, 4, h, w]`, scaled, float32.
    It reads tensors that nobody writes, so it may be called later, on another thread, or never.
    """

    step: int
    step_count: int
    timestep: float
    predict_clean: Callable[[], torch.Tensor]


OnStep = Callable[[StepResult], None]


@dataclass(frozen=True, eq=False)
class KnownLatents:
    """What an ordinary UNet must keep when it inpaints.

    `clean` `[n, 4, h, w]` are the input's latents, `noise` of the same shape what hides them at each noise
    level, `mask` `[1, 1, h, w]` is 1 where to redraw, 0 where to keep, and blends between. With `soft` it
    says in which share of the steps, the last ones, a place is redrawn, as a strength of its own
    (https://arxiv.org/abs/2306.00950).
    """

    clean: torch.Tensor
    noise: torch.Tensor
    mask: torch.Tensor
    soft: bool = False

    def keep(self, latents: torch.Tensor, clean: torch.Tensor, left: float) -> torch.Tensor:
        """`latents` under the mask, `clean` around it, before the last steps, of share `left`."""
        mask = (self.mask > left).to(self.mask.dtype) if self.soft else self.mask
        return (1 - mask) * clean + mask * latents


@dataclass(frozen=True, eq=False)
class Start:
    """Everything the loop runs on: a scheduler of its own, the timesteps to visit, the first latents.

    `extra_channels` `[n, 5, h, w]` are the mask and the masked image's latents of an inpainting UNet.
    `generators` hold each image's own noise; `eta` is the part of it that each step draws anew (TCD's gamma),
    None the scheduler's own. `step_count` of the schedule's `steps`, the last ones, are run. `conditioning`
    is asked for each evaluation, and returns another object where another LoRA set begins.
    """

    scheduler: SchedulerMixin
    timesteps: torch.Tensor
    steps: int
    step_count: int
    latents: torch.Tensor
    generators: list[torch.Generator]
    conditioning: Told
    guidance_scale: float
    clean_latents: CleanLatents
    guidance_rescale: float = 0.0
    guidance_interval: GuidanceInterval | None = None
    step_reuse: StepReuse | None = None
    eta: float | None = None
    tiling: Tiling = NO_TILING
    extra_channels: torch.Tensor | None = None
    known: KnownLatents | None = field(default=None)

    @property
    def tensors(self) -> list[torch.Tensor]:
        """What it brings to the device."""
        known = self.known
        every = [self.latents, self.extra_channels]
        every += [] if known is None else [known.clean, known.noise, known.mask]
        return [one for one in every if one is not None]

    def guidance_scale_at(self, step: int) -> float:
        """Return the scale of the step after `step` others: 1, no guidance, outside of the interval."""
        interval, skipped = self.guidance_interval, self.steps - self.step_count
        guided = interval is None or interval.holds(skipped + step, self.steps)
        return self.guidance_scale if guided else 1.0


Denoising = Generator[ModelInput | None, torch.Tensor, torch.Tensor]
"""Yields what it wants the UNet to evaluate, is sent the prediction, and returns the latents.

It yields None where it does not know yet what to tell the UNet, and asks again when it is sent anything.
"""

Asking = Generator[ModelInput, torch.Tensor, torch.Tensor]
"""A denoising that always knows."""


@torch.inference_mode()
def denoise(start: Start, on_step: OnStep) -> Denoising:
    """Denoise from `start`; the return value is the final latents `[n, 4, h, w]`.

    Yields a ModelInput for each evaluation that is not forecast, and is sent the guided prediction
    `[n, 4, h, w]`. Steps are counted as diffusers' progress bar counts them: a scheduler of order 2 evaluates
    twice for one. With no timesteps the first latents are the last.
    """
    latents, scheduler = start.latents, start.scheduler
    arguments = step_arguments(scheduler, start.generators, start.eta)
    forecaster = Forecaster(start.step_reuse, start.step_count)
    step, read = 0, start.tensors
    known: Conditioning | None = None
    for index, timestep in enumerate(start.timesteps):
        sample = scheduler.scale_model_input(latents, timestep)
        scale = start.guidance_scale_at(step)
        while (told := start.conditioning(step)) is None:
            yield None
        if told is not known:
            known, read = told, read + told.tensors
        if forecaster.asks(step, (scale, told)):
            answer = yield _model_input(start, sample, timestep, told, scale)
            for tensor in read:  # this is the thread that runs the steps; another one prepared them
                read_here(tensor)
            read = []
            prediction = answer.float()
            forecaster.note(float(timestep), prediction)
        else:
            prediction = forecaster.forecast(float(timestep))
        latents = scheduler.step(prediction, timestep, latents, **arguments, return_dict=False)[0]
        if start.known is not None:
            latents = _blend(start, start.known, latents, index)
        if _completes_step(start, index):
            step += 1
            clean = partial(_clean, start, sample.float(), timestep, prediction, _left(start, index))
            on_step(StepResult(step, start.step_count, float(timestep), clean))
    return latents.float()


@torch.inference_mode()
def _clean(
    start: Start, sample: torch.Tensor, timestep: torch.Tensor, prediction: torch.Tensor, left: float
) -> torch.Tensor:
    """The clean latents that a prediction stands for, the known ones kept."""
    clean = start.clean_latents(sample, timestep, prediction)
    return clean if start.known is None else start.known.keep(clean, start.known.clean, left)


def _model_input(
    start: Start, sample: torch.Tensor, timestep: torch.Tensor, told: Conditioning, scale: float
) -> ModelInput:
    sample = sample.float()
    if start.extra_channels is not None:
        sample = torch.cat([sample, start.extra_channels], dim=1)
    return ModelInput(sample, timestep, told, scale, start.guidance_rescale, start.tiling)


def _blend(start: Start, known: KnownLatents, latents: torch.Tensor, index: int) -> torch.Tensor:
    """Put the known latents back around the mask, at the noise level of the next timestep."""
    clean = known.clean
    if index + 1 < len(start.timesteps):
        clean = start.scheduler.add_noise(clean, known.noise, start.timesteps[index + 1 : index + 2])
    return known.keep(latents, clean, _left(start, index))


def _left(start: Start, index: int) -> float:
    """The share of the evaluations that come after the one at `index`."""
    return 1 - (index + 1) / len(start.timesteps)


def _completes_step(start: Start, index: int) -> bool:
    """Whether the evaluation at `index` ends a step: the rule of diffusers' progress bar."""
    order, count = start.scheduler.order, len(start.timesteps)
    warmup = count - start.step_count * order
    return index + 1 == count or (index + 1 > warmup and (index + 1) % order == 0)
