"""Draw with a denoiser in training: the ordinary guided loop on text features that are already made."""

from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DConditionModel

from . import classifier, parallel
from .captions import Caption
from .drawing import contact_sheet
from .export import load_vae
from .latents import decode_latents
from .models import GUIDANCE, STEPS, Run, make_scheduler


@torch.no_grad()
def sample_latents(
    unet: UNet2DConditionModel,
    features: torch.Tensor,
    empty: torch.Tensor,
    seed: int,
    guidance: float = GUIDANCE,
) -> torch.Tensor:
    """[B, 4, 16, 16] scaled latents for features [B, 77, 128], guided away from `empty` [77, 128]."""
    scheduler = make_scheduler()
    scheduler.set_timesteps(STEPS)
    latents = torch.randn((len(features), 4, 16, 16), generator=torch.Generator().manual_seed(seed))
    texts = torch.cat([empty.expand_as(features), features])
    for t in scheduler.timesteps:
        with parallel.autocast():
            both = unet(torch.cat([latents, latents]), t, texts, return_dict=False)[0].float()
        without, with_text = both.chunk(2)
        latents = scheduler.step(without + guidance * (with_text - without), t, latents).prev_sample
    return latents


def score(run: Run, pictures: np.ndarray, prompts: list[Caption]) -> dict[str, float]:
    """The share of pictures [B, 128, 128, 3] uint8 that show what their prompt says, by attribute."""
    net, _ = classifier.load(run)
    read = classifier.shapes(net, classifier.to_pixels(pictures))
    pairs = list(zip(pictures, prompts, strict=True))
    return {
        "shape": sum(r == p.shape for r, p in zip(read, prompts, strict=True)) / len(prompts),
        "fill": sum(classifier.fill_of(picture) == p.fill for picture, p in pairs) / len(prompts),
        "background": sum(classifier.background_of(picture) == p.background for picture, p in pairs)
        / len(prompts),
    }


def report(
    run: Run, unet: UNet2DConditionModel, features: torch.Tensor, prompts: list[Caption], sheet: Path
) -> dict[str, float]:
    """Scores of one picture per prompt; features [1 + B, 77, 128] begin with the empty caption's."""
    latents = sample_latents(unet.eval(), features[1:], features[0], seed=42)
    pictures = decode_latents(load_vae(run), latents)
    contact_sheet(list(pictures), 8).save(sheet)
    return score(run, pictures, prompts)
