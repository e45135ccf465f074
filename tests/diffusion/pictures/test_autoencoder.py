"""Pictures and latents."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image

from sdgrpc.diffusion.checkpoints.loading import load
from sdgrpc.diffusion.model import Model
from sdgrpc.diffusion.pictures import autoencoder
from sdgrpc.diffusion.pictures.resizing import resized
from sdgrpc.embedded import EMBEDDED
from sdgrpc.errors import OutOfMemory
from sdgrpc.images import to_image, to_picture
from tests.support.tasks import box_mask, gradient, pixels_of


def test_pictures_survive_pil() -> None:
    """RGB and grey pictures come back as they were."""
    for picture in (gradient(5, 3), box_mask(5, 3)):
        assert to_picture(to_image(picture)) == picture


def test_pixels_are_what_diffusers_feeds_the_vae() -> None:
    """Resized and scaled as its image processor does it."""
    image = to_image(gradient(50, 70))
    ours = autoencoder.to_tensor(resized(image, 64, 48)) * 2 - 1
    theirs = VaeImageProcessor(vae_scale_factor=8).preprocess(image, height=48, width=64)
    assert torch.equal(ours, theirs)


def test_an_image_of_the_right_size_is_not_resampled() -> None:
    """Resizing to the own size changes nothing."""
    image = Image.new("RGB", (8, 8))
    assert resized(image, 8, 8) is image


def test_decoded_pixels_are_those_of_diffusers(model: Model) -> None:
    """Clamped, scaled and rounded as its image processor does it."""
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)) * 3
    pictures = autoencoder.decode(model, latents)
    with torch.inference_mode():
        pixels = model.vae.decode(latents / model.vae.config.scaling_factor).sample
    expected = VaeImageProcessor(vae_scale_factor=8).postprocess(pixels, output_type="pil")
    for picture, image in zip(pictures, expected, strict=True):
        assert (picture.width, picture.height, picture.channels) == (64, 64, 3)
        assert abs(pixels_of(picture).astype(int) - np.asarray(image)).max() <= 1


def test_a_picture_does_not_depend_on_its_neighbours(model: Model) -> None:
    """Decoded together or alone, the bytes are equal."""
    latents = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    together = autoencoder.decode(model, latents)
    assert together == [autoencoder.decode(model, one[None])[0] for one in latents]


def test_values_beyond_the_range_are_clamped() -> None:
    """-3 is black and 3 is white."""
    picture = autoencoder.pixels_to_picture(torch.tensor([-3.0, 0.0, 3.0]).view(3, 1, 1))
    assert list(picture.data) == [0, 128, 255]


def test_sampling_moves_the_generator_on(model: Model) -> None:
    """Two draws differ, the same generator state repeats, and the scale is the VAE's."""
    posterior = autoencoder.encode(model, torch.zeros(1, 3, 64, 64))
    generator = torch.Generator().manual_seed(3)
    first, second = (autoencoder.sample(model, posterior, generator) for _ in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(first, autoencoder.sample(model, posterior, torch.Generator().manual_seed(3)))
    expected = posterior.sample(torch.Generator().manual_seed(3)) * model.vae.config.scaling_factor
    assert torch.equal(first, expected)


def test_a_picture_that_does_not_fit_is_decoded_in_tiles(model: Model, monkeypatch) -> None:
    """When the memory ends the VAE is asked for tiles; the picture has its size and nearly its pixels."""
    latents = torch.randn(1, 4, 16, 24, generator=torch.Generator().manual_seed(0))
    (whole,) = autoencoder.decode(model, latents)
    limit_decoder(model, monkeypatch, 8 * 8)
    (tiled,) = autoencoder.decode(model, latents)
    assert (tiled.width, tiled.height) == (192, 128)
    alike = np.corrcoef(pixels_of(tiled).ravel(), pixels_of(whole).ravel())[0, 1]
    assert alike > 0.7  # tiles see less of noise than the whole does; a shifted tile would be far below


def test_one_that_does_not_fit_in_tiles_either_is_out_of_memory(model: Model, monkeypatch) -> None:
    """A picture of one tile's size cannot be decoded in smaller parts."""
    limit_decoder(model, monkeypatch, 8 * 8 - 1)
    for side in (8, 16):
        with pytest.raises(OutOfMemory):
            autoencoder.decode(model, torch.zeros(1, 4, side, side))


def limit_decoder(model: Model, monkeypatch: pytest.MonkeyPatch, cells: int) -> None:
    """Let the VAE's decoder run out of memory beyond that many latent cells."""
    decoder = model.vae.decoder.forward

    def limited(sample: torch.Tensor, *rest: object) -> torch.Tensor:
        if sample.shape[-2] * sample.shape[-1] > cells:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate much")
        return decoder(sample, *rest)

    monkeypatch.setattr(model.vae.decoder, "forward", limited)


def test_bfloat16_hardly_changes_pictures() -> None:
    """The embedded VAE, which is trained, in both dtypes: the documented bound, and both ways."""
    device = torch.device("cpu")
    exact, halved = (
        load("embedded", EMBEDDED, device=device, dtype=dtype) for dtype in (torch.float32, torch.bfloat16)
    )
    pixels = autoencoder.to_tensor(to_image(gradient(128, 128))) * 2 - 1
    latents = [autoencoder.encode(one, pixels).mode() * one.latent_scale for one in (exact, halved)]
    assert {one.dtype for one in latents} == {torch.float32}
    assert (latents[0] - latents[1]).norm() <= 0.02 * latents[0].norm()
    pictures = [pixels_of(autoencoder.decode(one, latents[0])[0]).astype(int) for one in (exact, halved)]
    difference = abs(pictures[0] - pictures[1])
    assert difference.max() <= 5
    assert 0 < difference.mean() < 0.5
