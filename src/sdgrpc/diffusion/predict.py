"""One UNet call for the inputs of several jobs, with classifier-free guidance inside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sdgrpc.diffusion.denoise import ModelInput
from sdgrpc.diffusion.model import Model


@dataclass(frozen=True, eq=False)
class _Row:
    """One image of one input."""

    sample: torch.Tensor
    input: ModelInput


@torch.inference_mode()
def predict(model: Model, inputs: Sequence[ModelInput], max_rows: int) -> list[torch.Tensor]:
    """Evaluate the UNet for inputs of equal latent shape, guidance on or off and conditioning length.

    Each image has its own timestep, embedding and guidance scale. With guidance an image takes two rows,
    `[negatives; positives]` (Ho & Salimans 2022, https://arxiv.org/abs/2207.12598). More rows than
    `max_rows` are split over several calls; an image's two rows stay together.

    Returns one guided prediction `[n, 4, h, w]` per input, float32.
    """
    rows = [_Row(sample, one) for one in inputs for sample in torch.split(one.sample, 1)]
    width = 2 if inputs[0].guided else 1
    size = max(1, max_rows // width)
    predictions = torch.cat([_call(model, rows[at : at + size]) for at in range(0, len(rows), size)])
    return list(torch.split(predictions, [int(one.sample.shape[0]) for one in inputs]))


def _call(model: Model, rows: Sequence[_Row]) -> torch.Tensor:
    """One UNet call; `[len(rows), 4, h, w]`."""
    samples = torch.cat([row.sample for row in rows])
    # Training timesteps are whole numbers below 1000, so float32 holds them and those between exactly enough.
    timesteps = torch.stack([row.input.timestep.to("cpu", torch.float32) for row in rows])
    embeddings = torch.cat([row.input.conditioning.positive for row in rows])
    added = _added_conditions(model, rows)
    negatives = [row.input.conditioning.negative for row in rows if row.input.guided]
    if not negatives:
        return _unet(model, samples, timesteps, embeddings, added)
    embeddings = torch.cat([*(n for n in negatives if n is not None), embeddings])
    twice = samples.repeat(2, 1, 1, 1), timesteps.repeat(2)
    negative, positive = _unet(model, *twice, embeddings, added).chunk(2)
    scales = torch.tensor([row.input.guidance_scale for row in rows], device=negative.device)
    return negative + scales.view(-1, 1, 1, 1) * (positive - negative)


def _added_conditions(model: Model, rows: Sequence[_Row]) -> dict[str, torch.Tensor] | None:
    """What SDXL is told beside the prompt: pooled embeddings `[rows, P]` and sizes `[rows, 6]`.

    The sizes are (height, width) of the original, (top, left) of its crop and (height, width) of the target,
    all as diffusers' pipelines fill them in: an uncropped original of the picture's own size (section 2.2 of
    https://arxiv.org/abs/2307.01952). They stay float32; bfloat16 has no 1016.
    """
    if not model.is_sdxl:
        return None
    conditionings = [row.input.conditioning for row in rows]
    pooled = [one.pooled for one in conditionings]
    if rows[0].input.guided:
        pooled = [*(one.negative_pooled for one in conditionings), *pooled]
    height, width = (side * model.info.vae_scale_factor for side in rows[0].sample.shape[-2:])
    sizes = torch.tensor([[height, width, 0, 0, height, width]], dtype=torch.float32, device=model.device)
    embeddings = torch.cat([one for one in pooled if one is not None])
    return {
        "text_embeds": embeddings.to(model.device, model.dtype),
        "time_ids": sizes.repeat(len(pooled), 1),
    }


def _unet(
    model: Model,
    samples: torch.Tensor,
    timesteps: torch.Tensor,
    embeddings: torch.Tensor,
    added: dict[str, torch.Tensor] | None,
) -> torch.Tensor:
    output = model.unet(
        samples.to(model.device, model.dtype),
        timesteps.to(model.device),
        encoder_hidden_states=embeddings.to(model.device, model.dtype),
        added_cond_kwargs=added,
        return_dict=False,
    )
    prediction: torch.Tensor = output[0]
    return prediction.float()
