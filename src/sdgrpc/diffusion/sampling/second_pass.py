"""From what a first pass drew to the denoising of the second."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from diffusers import SchedulerMixin
from PIL import Image
from torch.nn import functional as F

from sdgrpc.diffusion.model import Model
from sdgrpc.diffusion.pictures import autoencoder
from sdgrpc.diffusion.pictures.resizing import covering, resized
from sdgrpc.diffusion.prompts.conditioning import Conditioning
from sdgrpc.diffusion.sampling.denoise import Denoising, OnStep, Told, denoise
from sdgrpc.diffusion.sampling.start import noised, started
from sdgrpc.domain import Decoder, ResizeMode, SecondPassMode, Task
from sdgrpc.images import to_image

Check = Callable[[], None]
Upscale = Callable[[str, Image.Image, int, int, Check], Image.Image]
"""Enlarges a picture (RGB) by the upscaler of a name until it covers a width and a height."""


def follow(
    model: Model,
    task: Task,
    conditioning: Conditioning | Told,
    on_step: OnStep,
    latents: torch.Tensor,
    *,
    check: Check = lambda: None,
    upscale: Upscale | None = None,
) -> Denoising:
    """Return the denoising of a task's second pass, not yet begun, from the `latents` of its first.

    Those are `[n, 4, h, w]`, scaled, float32. Each image draws its randomness from a generator that begins
    anew, in the order of a Transform: what that makes of the first picture is the same to the bit with PIXEL.
    `check` is called before each picture, and by `upscale` between tiles, and may raise.

    Raises:
        ModelError, OutOfMemory: as `autoencoder.decode`.

    """
    enlarge = partial(_pixels, model, task, check, upscale) if _is_pixel(task) else partial(_latents, model)
    second = task.passes[-1]

    def begin(
        scheduler: SchedulerMixin, timesteps: torch.Tensor, generators: list[torch.Generator]
    ) -> dict[str, Any]:
        clean = enlarge(second, latents, generators)
        return {"latents": noised(model, second, scheduler, timesteps, generators, clean)}

    return denoise(started(model, second, conditioning, begin), on_step)


def _is_pixel(task: Task) -> bool:
    return task.second_pass is not None and task.second_pass.mode is SecondPassMode.PIXEL


def _upscaler(task: Task) -> str:
    return "" if task.second_pass is None else task.second_pass.upscaler


def _latents(
    model: Model, second: Task, latents: torch.Tensor, _generators: list[torch.Generator]
) -> torch.Tensor:
    return enlarged(latents, *model.latent_size(second.width, second.height))


def enlarged(latents: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Latents `[n, c, height, width]`, bilinear, as the upscaler "Latent" of the web UI of AUTOMATIC1111.

    Where the proportions differ, they are scaled until they cover the size, and cut on both sides alike.
    """
    across, down = covering(latents.shape[-1], latents.shape[-2], width, height)
    whole = F.interpolate(latents, size=(down, across), mode="bilinear", antialias=False)
    top, left = (down - height) // 2, (across - width) // 2
    return whole[..., top : top + height, left : left + width].contiguous()


def _pixels(
    model: Model,
    task: Task,
    check: Check,
    upscale: Upscale | None,
    second: Task,
    latents: torch.Tensor,
    generators: list[torch.Generator],
) -> torch.Tensor:
    """Each image decoded, enlarged and encoded by itself, as often as there are images."""
    encoded = []
    tiling, tiny = task.sampling.tiling, task.output.decoder is Decoder.TINY
    for latent, generator in zip(torch.split(latents, 1), generators, strict=True):
        check()
        image = to_image(autoencoder.decode(model, latent, tiling, tiny=tiny)[0])
        if upscale is not None and (name := _upscaler(task)):
            image = upscale(name, image, second.width, second.height, check)
        fit = resized(image, second.width, second.height, ResizeMode.CROP)
        distribution = autoencoder.encode(model, autoencoder.to_tensor(fit) * 2 - 1, tiling)
        encoded.append(autoencoder.sample(model, distribution, generator))
    return torch.cat(encoded)
