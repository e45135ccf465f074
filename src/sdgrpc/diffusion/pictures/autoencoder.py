"""Pictures to latents and back through the VAE, in its dtype; latents and pixels are float32."""

from __future__ import annotations

import numpy as np
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image

from sdgrpc.diffusion.model import Model
from sdgrpc.domain import Picture, Tiling
from sdgrpc.errors import ModelError, OutOfMemory
from sdgrpc.machine.out_of_memory import as_out_of_memory
from sdgrpc.machine.seamless import seamless

NO_TILING = Tiling()


def to_tensor(image: Image.Image) -> torch.Tensor:
    """Pixels in [0, 1], `[1, C, H, W]`, float32 on the CPU."""
    pixels = np.asarray(image, dtype=np.float32) / 255.0
    return torch.from_numpy(pixels.reshape(1, image.height, image.width, -1)).permute(0, 3, 1, 2)


@torch.inference_mode()
def encode(model: Model, pixels: torch.Tensor, tiling: Tiling = NO_TILING) -> DiagonalGaussianDistribution:
    """The VAE's distribution of latents for pixels in [-1, 1], `[1, 3, H, W]`; its noise is float32."""
    with seamless(tiling):
        encoded = model.vae.encode(pixels.to(model.device, model.vae.dtype)).latent_dist
    return DiagonalGaussianDistribution(encoded.parameters.float())


@torch.inference_mode()
def sample(
    model: Model, distribution: DiagonalGaussianDistribution, generator: torch.Generator
) -> torch.Tensor:
    """Draw scaled latents `[1, 4, h, w]` from the generator, which is moved on by their number."""
    latents: torch.Tensor = distribution.sample(generator) * model.latent_scale
    return latents.contiguous()


@torch.inference_mode()
def decode(
    model: Model, latents: torch.Tensor, tiling: Tiling = NO_TILING, *, tiny: bool = False
) -> list[Picture]:
    """Decode scaled latents `[n, 4, h, w]` to n RGB pictures of 8h by 8w pixels.

    One at a time: a picture then does not depend on its neighbours, and memory does not grow with n. One for
    which the memory does not suffice is decoded in overlapping tiles of the size that the VAE was trained on.
    With `tiny` the model's tiny decoder makes them, where it has one.

    Raises:
        OutOfMemory: not even that fits.
        ModelError: the VAE makes numbers that are not finite of latents that are.

    """
    with seamless(tiling):
        one = _decode_tiny if tiny and model.tiny is not None else _decode_one
        return [one(model, latent) for latent in torch.split(latents, 1)]


def _decode_tiny(model: Model, latent: torch.Tensor) -> Picture:
    if model.tiny is None:
        raise ValueError("the model has no tiny decoder")
    pixels: torch.Tensor = model.tiny(latent.to(model.device, model.vae.dtype))[0]
    return pixels_to_picture(pixels)


def _decode_one(model: Model, latent: torch.Tensor) -> Picture:
    scaled = (latent.to(model.device, torch.float32) / model.latent_scale).to(model.vae.dtype)
    try:
        pixels = as_out_of_memory(lambda: model.vae.decode(scaled).sample[0], model.device)
    except OutOfMemory:
        if max(scaled.shape[-2:]) <= model.vae.tile_latent_min_size:
            raise
        pixels = as_out_of_memory(lambda: model.vae.tiled_decode(scaled).sample[0], model.device)
    if not torch.isfinite(pixels).all():  # a NaN would become some colour
        raise ModelError(
            f"the model {model.info.name!r}: its VAE makes numbers that are not finite; its file may be "
            "broken, or needs --dtype float32"
        )
    return pixels_to_picture(pixels)


def pixels_to_picture(pixels: torch.Tensor) -> Picture:
    """An RGB picture from values in [-1, 1], `[3, H, W]`; values beyond are clamped."""
    unit = (pixels.float() * 0.5 + 0.5).clamp(0.0, 1.0)
    octets = (unit * 255.0).round().to(torch.uint8).permute(1, 2, 0).contiguous().cpu().numpy()
    height, width, channels = octets.shape
    return Picture(width, height, channels, octets.tobytes())
