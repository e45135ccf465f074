"""UNet calls for the inputs of several jobs, with classifier-free guidance inside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from sdgrpc.diffusion.compiling.calls import UNetCall, UNetInputs, call_unet
from sdgrpc.diffusion.model import Model
from sdgrpc.diffusion.sampling.denoise import ModelInput
from sdgrpc.machine.seamless import seamless
from sdgrpc.machine.streams import read_here


@dataclass(frozen=True, eq=False)
class _Row:
    """One image of one input, asked about its prompt or about what it must not show."""

    sample: torch.Tensor
    input: ModelInput
    negative: bool


@torch.inference_mode()
def predict(
    model: Model, inputs: Sequence[ModelInput], max_rows: int, call: UNetCall | None = None
) -> list[torch.Tensor]:
    """Evaluate the UNet for inputs of equal latent shape, guidance on or off, conditioning length and tiling.

    Each image has its own timestep, embedding and guidance scale. With guidance an image takes two rows,
    `[negatives; positives]` (Ho & Salimans 2022, https://arxiv.org/abs/2207.12598). More rows than
    `max_rows` are split over several calls; an image's two rows stay together unless `max_rows` is 1.
    `call` is how the UNet is called: as it is, unless something else is said.

    Returns one guided prediction `[n, 4, h, w]` per input, float32.
    """
    images = [(sample, one) for one in inputs for sample in torch.split(one.sample, 1)]
    sides = (True, False) if inputs[0].guided else (False,)
    size = max(1, max_rows // len(sides))
    tiling, plain = inputs[0].tiling, partial(call_unet, model.unet)
    unet = plain if tiling or call is None else call  # what is compiled convolves as it was traced
    predictions = []
    for at in range(0, len(images), size):
        part = images[at : at + size]
        rows = [_Row(*image, negative) for negative in sides for image in part]
        calls = [rows] if len(rows) <= max_rows else [[row] for row in rows]
        with seamless(tiling):
            answers = torch.cat([_call(model, part_rows, unet) for part_rows in calls])
        predictions.append(_guide(part, answers) if len(sides) == 2 else answers)
    return list(torch.split(torch.cat(predictions), [int(one.sample.shape[0]) for one in inputs]))


def _guide(images: Sequence[tuple[torch.Tensor, ModelInput]], answers: torch.Tensor) -> torch.Tensor:
    """Classifier-free guidance of `[negatives; positives]`, each image by its own scale and rescaling."""
    negative, positive = answers.chunk(2)
    scales = _queued([one.guidance_scale for _, one in images], answers.device)
    guided = negative + scales.view(-1, 1, 1, 1) * (positive - negative)
    if any(one.guidance_rescale for _, one in images):
        shares = _queued([one.guidance_rescale for _, one in images], answers.device)
        return _rescaled(guided, positive, shares.view(-1, 1, 1, 1))
    return guided


def _queued(values: Sequence[float] | Sequence[Sequence[float]], device: torch.device) -> torch.Tensor:
    """Return float32 numbers on the device, without waiting for what it does."""
    return torch.tensor(values, dtype=torch.float32).to(device, non_blocking=True)


def _rescaled(guided: torch.Tensor, positive: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Bring a share of each guided prediction back to the standard deviation of the one for the prompt alone.

    Formulas (15) and (16) of https://arxiv.org/abs/2305.08891, for all values of an image together; a share
    of 0 changes nothing.
    """
    dimensions = (1, 2, 3)
    ratio = positive.std(dimensions, keepdim=True) / guided.std(dimensions, keepdim=True)
    return torch.where(shares > 0, shares * (guided * ratio) + (1 - shares) * guided, guided)


def _call(model: Model, rows: Sequence[_Row], unet: UNetCall) -> torch.Tensor:
    """One UNet call; `[len(rows), 4, h, w]`."""
    for row in rows:  # the first ones were made on another thread's stream
        read_here(row.input.sample)
    samples = torch.cat([row.sample for row in rows])
    # Training timesteps are whole numbers below 1000, so float32 holds them and those between exactly enough.
    timesteps = torch.stack([row.input.timestep.to("cpu", torch.float32) for row in rows])
    told = [row.input.conditioning for row in rows]
    sides = [one.negative if row.negative else one.positive for row, one in zip(rows, told, strict=True)]
    embeddings = torch.cat([side for side in sides if side is not None])
    pooled, time_ids = _added_conditions(model, rows)
    asked = UNetInputs(
        samples.to(model.device, model.dtype),
        timesteps.to(model.device, non_blocking=True),
        embeddings.to(model.device, model.dtype),
        pooled,
        time_ids,
    )
    return unet(asked).to(torch.float32, copy=True)  # what a recorded call returned is overwritten


def _added_conditions(model: Model, rows: Sequence[_Row]) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """What SDXL is told beside the prompt: pooled embeddings `[rows, P]` and sizes `[rows, 6]`.

    The sizes are (height, width) of the original, (top, left) of its crop and (height, width) of the target,
    all as diffusers' pipelines fill them in: an uncropped original of the picture's own size (section 2.2 of
    https://arxiv.org/abs/2307.01952). They stay float32; bfloat16 has no 1016.
    """
    if not model.is_sdxl:
        return None, None
    told = [(row.input.conditioning, row.negative) for row in rows]
    pooled = [one.negative_pooled if negative else one.pooled for one, negative in told]
    height, width = (side * model.info.vae_scale_factor for side in rows[0].sample.shape[-2:])
    sizes = _queued([[height, width, 0, 0, height, width]], model.device)
    embeddings = torch.cat([one for one in pooled if one is not None])
    return embeddings.to(model.device, model.dtype), sizes.repeat(len(rows), 1)
