"""Tiny decoders as they are published."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny
from safetensors.torch import load_file, save_file

from sdgrpc.diffusion.checkpoints.loading import open_model
from sdgrpc.diffusion.checkpoints.tiny_vae import with_tiny_vae
from sdgrpc.diffusion.model import Model
from sdgrpc.diffusion.pictures.autoencoder import decode
from sdgrpc.embedded import EMBEDDED, embedded_folder
from sdgrpc.errors import ModelError
from tests.support.tasks import draw, pixels_of, task

FOLDER = embedded_folder().parent / "decoder"
CPU = torch.device("cpu")


def opened(source: Path | str) -> Model:
    return with_tiny_vae(open_model("tiny", EMBEDDED), str(source)).load(CPU, torch.float32)


@pytest.fixture(scope="module")
def model() -> Model:
    return opened(EMBEDDED)


def test_it_decodes_as_diffusers_does(model: Model) -> None:
    """The network that was built from the tensors' names is the one of the configuration."""
    latents = torch.randn(1, 4, 8, 6, generator=torch.Generator().manual_seed(1))
    expected = AutoencoderTiny.from_pretrained(FOLDER, torch_dtype=torch.float32).decode(latents).sample
    assert model.tiny is not None
    assert torch.allclose(model.tiny(latents), expected, atol=1e-5)


def test_its_pictures_are_nearly_the_vae_s(model: Model) -> None:
    """At least 30 dB for what the embedded model draws, on the mean, and the file is small."""
    found = []
    for seed, prompt in enumerate(("a red star on a white background", "a blue heart on a pink background")):
        plain = task(prompt=prompt, negative_prompt="", seed=seed, steps=20, guidance_scale=2.0)
        latents = draw(model, replace(plain, width=128, height=128))
        exact, fast = (pixels_of(decode(model, latents, tiny=tiny)[0]) / 255 for tiny in (False, True))
        found.append(-10 * np.log10(((exact - fast) ** 2).mean()))
    assert np.mean(found) >= 30
    assert (FOLDER / "diffusion_pytorch_model.safetensors").stat().st_size <= 300_000


def test_single_files_with_either_names(model: Model, tmp_path: Path) -> None:
    """Diffusers' in one file; the first publication's, where a clamp is counted and no encoder is there."""
    tensors = load_file(FOLDER / "diffusion_pytorch_model.safetensors")
    save_file(tensors, tmp_path / "whole.safetensors")
    first = {}
    for key, tensor in tensors.items():
        if key.startswith("decoder.layers."):
            number, _, rest = key.removeprefix("decoder.layers.").partition(".")
            first[f"{int(number) + 1}.{rest}"] = tensor
    save_file(first, tmp_path / "first.safetensors")
    latents = torch.randn(1, 4, 8, 8)
    assert model.tiny is not None
    for name in ("whole", "first"):
        other = opened(tmp_path / f"{name}.safetensors").tiny
        assert other is not None
        assert torch.equal(other(latents), model.tiny(latents))


def test_what_is_none_is_named(tmp_path: Path) -> None:
    """No such place, another class, no decoder, one for latents of other channels."""
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    AutoencoderTiny(
        latent_channels=16, num_decoder_blocks=(1,), decoder_block_out_channels=(8,)
    ).save_pretrained(tmp_path / "other")
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae/config.json").write_text(json.dumps({"_class_name": "AutoencoderKL"}))
    for source, sentence in (
        ("nowhere/at/all", "is no folder, file"),
        (tmp_path / "a.safetensors", "holds no tiny decoder"),
        (tmp_path / "other", "latents of 16 channels"),
        (tmp_path / "vae", "is a AutoencoderKL"),
    ):
        with pytest.raises(ModelError, match=sentence):
            opened(source)
