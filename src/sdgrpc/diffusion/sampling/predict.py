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
    """One image of one input, asked about a part of its prompt or, None, about what it must not show."""

    sample: torch.Tensor
    input: ModelInput
    part: int | None

    @property
    def embeddings(self) -> torch.Tensor:
        """What the UNet is told, `[1, T, D]`."""
        told = self.input.conditioning
        found = told.negative if self.part is None else told.positive[self.part : self.part + 1]
        assert found is not None, "a side that is not told is not asked about"  # noqa: S101
        return found

    @property
    def pooled(self) -> torch.Tensor | None:
        """What SDXL is told of the whole, `[1, P]`."""
        told = self.input.conditioning
        if self.part is None or told.pooled is None:
            return told.negative_pooled
        return told.pooled[self.part : self.part + 1]


@torch.inference_mode()
def predict(
    model: Model, inputs: Sequence[ModelInput], max_rows: int, call: UNetCall | None = None
) -> list[torch.Tensor]:
    """Evaluate the UNet for inputs of equal latent shape, sides, conditioning length and tiling.

    Each image has its own timestep, embedding and guidance scale. With guidance an image takes two rows,
    `[negatives; positives]` (Ho & Salimans 2022, https://arxiv.org/abs/2207.12598), and one for each further
    part of a composed prompt (Liu et al. 2022, https://arxiv.org/abs/2206.01714). More rows than `max_rows`
    are split over several calls; an image's rows stay together unless they are more.
    `call` is how the UNet is called: as it is, unless something else is said.

    Returns one guided prediction `[n, 4, h, w]` per input, float32.
    """
    images = [(sample, one) for one in inputs for sample in torch.split(one.sample, 1)]
    first = inputs[0]
    parts = range(len(first.conditioning.weights))
    sides = (None, *parts) if first.guided else (*parts,)
    most = max(1, max_rows)
    size = max(1, most // len(sides))
    tiling, plain = first.tiling, partial(call_unet, model.unet)
    unet = plain if tiling or call is None else call  # what is compiled convolves as it was traced
    predictions = []
    for at in range(0, len(images), size):
        part = images[at : at + size]
        rows = [_Row(*image, side) for side in sides for image in part]
        calls = [rows[begin : begin + most] for begin in range(0, len(rows), most)]
        with seamless(tiling):
            answers = torch.cat([_call(model, part_rows, unet) for part_rows in calls])
        predictions.append(_guide([one for _, one in part], answers))
    return list(torch.split(torch.cat(predictions), [int(one.sample.shape[0]) for one in inputs]))


def _guide(images: Sequence[ModelInput], answers: torch.Tensor) -> torch.Tensor:
    """Classifier-free guidance of `[negatives; positives]`, each image by its own scale and rescaling.

    `negative + scale * sum(weight * (positive - negative))` over the parts of its prompt, as the web UI has
    it. Without negatives the scale is 1 and the weights add up to 1, and it is their sum.
    """
    sides = answers.chunk(images[0].sides)
    if not images[0].guided:
        return _weighed(images, sides)
    negative, *positives = sides
    towards = _weighed(images, [positive - negative for positive in positives])
    scales = _queued([one.guidance_scale for one in images], answers.device)
    guided = negative + scales.view(-1, 1, 1, 1) * towards
    if any(one.guidance_rescale for one in images):
        shares = _queued([one.guidance_rescale for one in images], answers.device)
        return _rescaled(guided, negative + towards, shares.view(-1, 1, 1, 1))
    return guided


def _weighed(images: Sequence[ModelInput], sides: Sequence[torch.Tensor]) -> torch.Tensor:
    """Add up what was answered for the parts `[n, 4, h, w]` of each image's prompt, by its own weights."""
    weights = [one.conditioning.weights for one in images]
    if all(one == (1.0,) for one in weights):
        return sides[0]
    shares = _queued(weights, sides[0].device)
    return (shares.T.reshape(*shares.T.shape, 1, 1, 1) * torch.stack([*sides])).sum(0)


def _queued(values: Sequence[float] | Sequence[Sequence[float]], device: torch.device) -> torch.Tensor:
    """Return float32 numbers on the device, without waiting for what it does."""
    return torch.tensor(values, dtype=torch.float32).to(device, non_blocking=True)


def _rescaled(guided: torch.Tensor, positive: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Bring a share of each guided prediction back to the standard deviation of the one for the prompt alone.

    Formulas (15) and (16) of https://arxiv.org/abs/2305.08891, for all values of an image together; a share
    of 0 changes nothing. The paper knows no parts: of a composed prompt "alone" is what a scale of 1 gives,
    which is the same where there is one part.
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
    embeddings = torch.cat([row.embeddings for row in rows])
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
    height, width = (side * model.info.vae_scale_factor for side in rows[0].sample.shape[-2:])
    sizes = _queued([[height, width, 0, 0, height, width]], model.device)
    embeddings = torch.cat([row.pooled for row in rows if row.pooled is not None])
    return embeddings.to(model.device, model.dtype), sizes.repeat(len(rows), 1)
