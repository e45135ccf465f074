"""From a task to the start of its denoising: noise, encoded inputs, scheduler."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, overload

import torch
from diffusers import SchedulerMixin

from sdgrpc.diffusion.model import Model
from sdgrpc.diffusion.pictures import autoencoder, inpainting
from sdgrpc.diffusion.pictures.inpainting import Region
from sdgrpc.diffusion.pictures.resizing import resized
from sdgrpc.diffusion.prompts.conditioning import Conditioning
from sdgrpc.diffusion.sampling import schedulers
from sdgrpc.diffusion.sampling.clean_latents import CleanLatents
from sdgrpc.diffusion.sampling.denoise import (
    Asking,
    Denoising,
    KnownLatents,
    OnStep,
    Start,
    Told,
    always,
    denoise,
)
from sdgrpc.diffusion.sampling.noise import generator, slerp
from sdgrpc.diffusion.sampling.step_spacing import Schedule
from sdgrpc.domain import MaskedContent, Scheduler, Task, TaskKind
from sdgrpc.errors import ModelError
from sdgrpc.images import to_image


@overload
def prepare(
    model: Model, task: Task, conditioning: Conditioning, on_step: OnStep, *, region: Region | None = None
) -> Asking: ...


@overload
def prepare(
    model: Model, task: Task, conditioning: Told, on_step: OnStep, *, region: Region | None = None
) -> Denoising: ...


def prepare(
    model: Model,
    task: Task,
    conditioning: Conditioning | Told,
    on_step: OnStep,
    *,
    region: Region | None = None,
) -> Denoising:
    """Encode the task's inputs, draw its noise, build its scheduler; return its denoising, not yet begun.

    Image i draws all its randomness (the VAE's posterior, the first noise, the scheduler's) from its own CPU
    generator seeded with seed + i, in the order in which diffusers' pipelines draw, so it equals the single
    image of that seed on every device. Latents are float32 whatever the model's dtype. `conditioning` may
    differ from step to step. `region` is what an inpainting task redraws, where its maker has it already.

    Raises:
        InvalidRequest, ModelError: see `schedulers.build`.
        ModelError: the model can only inpaint and the task is something else.

    """
    return denoise(start(model, task, conditioning, region), on_step)


@torch.inference_mode()
def start(model: Model, task: Task, conditioning: Conditioning | Told, region: Region | None = None) -> Start:
    """What `prepare` hands to `denoise`."""
    begin: Mapping[TaskKind, Callable[..., dict[str, Any]]] = {
        TaskKind.GENERATE: _generate,
        TaskKind.TRANSFORM: _transform,
        TaskKind.INPAINT: partial(_inpaint, region=region),
    }
    return started(model, task, conditioning, partial(begin[task.kind], model, task))


@torch.inference_mode()
def started(
    model: Model,
    task: Task,
    conditioning: Conditioning | Told,
    begin: Callable[[SchedulerMixin, torch.Tensor, list[torch.Generator]], dict[str, Any]],
) -> Start:
    """A start of one pass; `begin` makes its first latents, and what else depends on where it begins."""
    _check_kind(model, task)
    sampling = task.sampling
    eta = sampling.gamma if sampling.scheduler is Scheduler.TCD else sampling.eta
    schedule = Schedule(
        sampling.steps, sampling.sigma_spacing, sampling.timestep_spacing, is_sdxl=model.is_sdxl, eta=eta
    )
    scheduler = schedulers.build(model.scheduler_config, sampling.scheduler, schedule)
    timesteps = schedulers.denoising_timesteps(scheduler, sampling.steps, task.steps_of_pass)
    generators = [generator(sampling.seed_of(i)) for i in range(sampling.image_count)]
    begun = begin(scheduler, timesteps, generators)
    begun["latents"] = begun["latents"].to(
        schedulers.latents_dtype(model.scheduler_config, sampling.scheduler)
    )
    return Start(
        scheduler=scheduler,
        timesteps=timesteps,
        steps=sampling.steps,
        step_count=task.steps_of_pass,
        generators=generators,
        conditioning=always(conditioning) if isinstance(conditioning, Conditioning) else conditioning,
        guidance_scale=sampling.guidance_scale,
        guidance_rescale=sampling.guidance_rescale,
        guidance_interval=sampling.guidance_interval,
        step_reuse=sampling.step_reuse,
        eta=eta,
        tiling=sampling.tiling,
        clean_latents=CleanLatents(model.scheduler_config),
        **begun,
    )


def _check_kind(model: Model, task: Task) -> None:
    """Refuse a task without a mask to a UNet that must be shown one."""
    if model.info.is_inpainting and task.kind is not TaskKind.INPAINT:
        raise ModelError(f"the model {model.info.name!r} is an inpainting model; it can only inpaint")


def _generate(
    model: Model,
    task: Task,
    scheduler: SchedulerMixin,
    _timesteps: torch.Tensor,
    generators: list[torch.Generator],
) -> dict[str, Any]:
    return {"latents": _first_noise(model, task, generators) * scheduler.init_noise_sigma}


def _transform(
    model: Model,
    task: Task,
    scheduler: SchedulerMixin,
    timesteps: torch.Tensor,
    generators: list[torch.Generator],
) -> dict[str, Any]:
    """Noise over the input's latents, at the first timestep; the latents alone if there is none."""
    if task.image is None:
        raise ValueError("a transform task has an image")
    image = resized(to_image(task.image), task.width, task.height, task.resize_mode)
    clean = _encode(model, task, autoencoder.to_tensor(image) * 2 - 1, generators)
    return {"latents": noised(model, task, scheduler, timesteps, generators, clean)}


def noised(
    model: Model,
    task: Task,
    scheduler: SchedulerMixin,
    timesteps: torch.Tensor,
    generators: list[torch.Generator],
    clean: torch.Tensor,
) -> torch.Tensor:
    """Clean latents `[n, 4, h, w]` under noise for the first timestep; as they are if there is none."""
    if len(timesteps) == 0:
        return clean
    noise = _first_noise(model, task, generators)
    under: torch.Tensor = scheduler.add_noise(clean, noise, timesteps[:1].repeat(len(generators)))
    return under


def _inpaint(
    model: Model,
    task: Task,
    scheduler: SchedulerMixin,
    timesteps: torch.Tensor,
    generators: list[torch.Generator],
    *,
    region: Region | None,
) -> dict[str, Any]:
    """Strength 1 starts from pure noise, less from the noised input, as diffusers' inpainting pipeline.

    Where the masked part has another content than the input's it is noised at strength 1 too, as in the web
    UI of AUTOMATIC1111, whose noise schedules leave a little of it.

    An ordinary UNet has the known latents put back at every step, an inpainting UNet is shown the mask and
    the masked image's latents as five more channels.
    """
    region = region or inpainting.region(task)
    ordinary = not model.info.is_inpainting
    mask = region.latent_mask(*model.latent_size(task.width, task.height)).to(model.device)
    clean = None
    content = task.mask_options.masked_content
    if ordinary or task.strength < 1 or content is not MaskedContent.ORIGINAL:
        clean = _encode(model, task, autoencoder.to_tensor(region.content) * 2 - 1, generators)
    noise = _first_noise(model, task, generators)
    if ordinary and clean is not None:
        # diffusers encodes the masked image here too and does not use it; the generators move on as there.
        _noise(model, task, generators)
        more: dict[str, Any] = {"known": KnownLatents(clean, noise, mask, soft=task.mask_options.soft)}
    else:
        masked = _encode(model, task, region.masked_pixels(), generators)
        masks = (mask >= 0.5).float().expand(len(generators), -1, -1, -1)
        more = {"extra_channels": torch.cat([masks, masked], dim=1)}
    if clean is None or (task.strength == 1 and content is MaskedContent.ORIGINAL):
        return {"latents": noise * scheduler.init_noise_sigma, **more}
    if content in (MaskedContent.NOISE, MaskedContent.NOTHING):
        under = _noise(model, task, generators) if content is MaskedContent.NOISE else torch.zeros_like(clean)
        clean = (1 - mask) * clean + mask * under
    if len(timesteps) == 0:
        return {"latents": clean, **more}
    return {"latents": scheduler.add_noise(clean, noise, timesteps[:1].repeat(len(generators))), **more}


def _first_noise(model: Model, task: Task, generators: list[torch.Generator]) -> torch.Tensor:
    """The noise to start from, varied towards another seed's where the task says so."""
    noise, variation = _noise(model, task, generators), task.sampling.variation
    if variation is None or variation.seed is None or not variation.strength:
        return noise
    others = [generator(variation.seed + i) for i in range(len(generators))]
    other = _noise(model, task, others)
    pairs = zip(torch.split(noise, 1), torch.split(other, 1), strict=True)
    return torch.cat([slerp(one, another, variation.strength) for one, another in pairs])


def _noise(model: Model, task: Task, generators: list[torch.Generator]) -> torch.Tensor:
    """Standard normal noise, `[n, 4, h, w]` float32, each image's from its own generator."""
    shape = (1, model.info.latent_channels, *model.latent_size(task.width, task.height))
    drawn = [torch.randn(shape, generator=generator) for generator in generators]
    return torch.cat(drawn).to(model.device)


def _encode(
    model: Model, task: Task, pixels: torch.Tensor, generators: list[torch.Generator]
) -> torch.Tensor:
    """Scaled latents of one image, sampled once per generator: `[n, 4, h, w]`."""
    distribution = autoencoder.encode(model, pixels, task.sampling.tiling)
    return torch.cat([autoencoder.sample(model, distribution, generator) for generator in generators])
