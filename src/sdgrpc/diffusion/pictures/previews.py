"""Predicted clean latents as small pictures by a linear map, or as they are."""

from __future__ import annotations

import torch
from PIL import Image

from sdgrpc.diffusion.model import Model
from sdgrpc.diffusion.pictures import autoencoder
from sdgrpc.domain import LatentArray, Picture
from sdgrpc.images import to_image, to_picture

Factors = tuple[tuple[float, float, float], ...]
Bias = tuple[float, float, float]

# Published least-squares fits of RGB in [-1, 1] to scaled latents: ComfyUI's latent_formats. SD2 shares SD1's
# latent space.
PUBLISHED_FACTORS: dict[str, tuple[Factors, Bias]] = {
    "sd15": (
        (
            (0.3512, 0.2297, 0.3227),
            (0.3250, 0.4974, 0.2350),
            (-0.2829, 0.1762, 0.2721),
            (-0.2120, -0.2616, -0.7177),
        ),
        (0.0, 0.0, 0.0),
    ),
    "sdxl": (
        (
            (0.3651, 0.4232, 0.4341),
            (-0.2533, -0.0042, 0.1068),
            (0.1076, 0.1111, -0.0362),
            (-0.3165, -0.2492, -0.2188),
        ),
        (0.1084, -0.0175, -0.0011),
    ),
}
PUBLISHED_FACTORS["sd2"] = PUBLISHED_FACTORS["sd15"]


@torch.inference_mode()
def preview_pictures(model: Model, denoised: torch.Tensor, max_side: int) -> list[Picture]:
    """Pictures of clean latents `[n, 4, h, w]` by the model's linear map of channels to RGB.

    The longer side is `max_side` pixels, at most the image's own; 0 is the latents' size.
    """
    factors = torch.tensor(model.info.latent_rgb_factors, dtype=torch.float32)
    bias = torch.tensor(model.info.latent_rgb_bias, dtype=torch.float32)
    # `[n, 3, h, w]`; on the CPU, since a few thousand numbers are not worth the device's time.
    pixels = torch.einsum("nchw,cr->nrhw", denoised.float().cpu(), factors) + bias.view(1, 3, 1, 1)
    pictures = [autoencoder.pixels_to_picture(one) for one in pixels]
    largest = max(denoised.shape[-2:]) * model.info.vae_scale_factor
    return [fitted(picture, min(max_side, largest)) for picture in pictures]


def latent_array(denoised: torch.Tensor) -> LatentArray:
    """One image's clean latents `[c, h, w]` as they travel: float16, little endian, row-major."""
    channels, height, width = denoised.shape
    return LatentArray(channels, height, width, denoised.float().cpu().numpy().astype("<f2").tobytes())


def fitted(picture: Picture, longer_side: int) -> Picture:
    """The picture with that longer side and its own proportions; 0 leaves it as it is."""
    longest = max(picture.width, picture.height)
    if longer_side in {0, longest}:
        return picture
    width = max(1, round(picture.width * longer_side / longest))
    height = max(1, round(picture.height * longer_side / longest))
    resample = Image.Resampling.BILINEAR
    return to_picture(to_image(picture).resize((width, height), resample))
