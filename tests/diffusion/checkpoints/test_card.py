"""sdgrpc.json and the defaults of models that have none."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sdgrpc.diffusion.checkpoints.card import model_info, with_card
from sdgrpc.diffusion.pictures.previews import PUBLISHED_FACTORS
from sdgrpc.domain import ModelInfo, Scheduler, TimestepSpacing
from sdgrpc.errors import ModelError


def described(folder: Path, card: dict[str, Any] | None = None, **unet: Any) -> ModelInfo:
    """The info of a model with SD1.5's shape; `unet` changes its UNet's configuration."""
    if card is not None:
        (folder / "sdgrpc.json").write_text(json.dumps(card))
    shape = {"cross_attention_dim": 768, "sample_size": 64, "in_channels": 4} | unet
    configs = {
        "unet": shape,
        "vae": {"block_out_channels": (128, 256, 512, 512), "latent_channels": 4},
        "text_encoder": {"num_hidden_layers": 12},
    }
    parts = {name: SimpleNamespace(config=SimpleNamespace(**config)) for name, config in configs.items()}
    return model_info("m", folder / "sdgrpc.json", parts, {"_class_name": "PNDMScheduler"}, embedded=False)


def test_stable_diffusion_1_without_a_card(tmp_path: Path) -> None:
    """Size, guidance, scheduler and preview factors follow from the architecture."""
    info = described(tmp_path)
    assert (info.base, info.width, info.height, info.vae_scale_factor) == ("sd15", 512, 512, 8)
    assert (info.steps, info.guidance_scale, info.scheduler) == (25, 7.5, Scheduler.PNDM)
    assert (info.is_inpainting, info.prediction_type, info.text_encoder_layers) == (False, "epsilon", 12)
    assert info.latent_rgb_factors == PUBLISHED_FACTORS["sd15"][0]
    assert info.title == "Stable Diffusion 1"


@pytest.mark.parametrize(("width", "base"), [(768, "sd15"), (1024, "sd2"), (2048, "sdxl"), (128, "embedded")])
def test_the_base_follows_from_the_text_embeddings(tmp_path: Path, width: int, base: str) -> None:
    """The width that the UNet attends to tells the family."""
    assert described(tmp_path, cross_attention_dim=width).base == base


def test_other_shapes(tmp_path: Path) -> None:
    """9 channels are an inpainting model; a size may be two numbers."""
    info = described(tmp_path, in_channels=9, sample_size=[64, 96])
    assert info.is_inpainting
    assert (info.width, info.height) == (768, 512)


def test_a_card_sets_what_it_holds(tmp_path: Path) -> None:
    """Every key of the card is in the info."""
    card = {
        "title": "T",
        "description": "D",
        "default_width": 128,
        "default_height": 64,
        "default_steps": 9,
        "default_guidance_scale": 4,
        "default_scheduler": "EULER_ancestral",
        "latent_rgb_factors": [[1, 2, 3], [4, 5, 6], [7, 8, 9], [10, 11, 12]],
        "latent_rgb_bias": [0.5, 0, -0.5],
    }
    info = described(tmp_path, card)
    assert (info.title, info.description, info.width, info.height) == ("T", "D", 128, 64)
    assert (info.steps, info.guidance_scale, info.scheduler) == (9, 4.0, Scheduler.EULER_ANCESTRAL)
    assert info.latent_rgb_factors[2] == (7.0, 8.0, 9.0)
    assert info.latent_rgb_bias == (0.5, 0.0, -0.5)


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ({"titel": "T"}, "unknown keys: titel"),
        ({"title": 3}, "title in .* must be a text"),
        ({"default_width": 12.5}, "default_width in .* must be a whole number above 0"),
        ({"default_steps": 0}, "default_steps in .* must be a whole number above 0"),
        ({"default_steps": True}, "default_steps in .* must be a whole number above 0"),
        ({"default_guidance_scale": "7"}, "default_guidance_scale in .* must be a number"),
        ({"default_scheduler": "fast"}, "default_scheduler in .* must be one of euler, "),
        (
            {"latent_rgb_factors": [[1, 2, 3]]},
            r"latent_rgb_factors in .* must be 4 row\(s\) of three numbers",
        ),
        ({"latent_rgb_bias": [1, 2]}, r"latent_rgb_bias in .* must be 1 row\(s\) of three numbers"),
        ([1], "cannot be read as a JSON object"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, card: Any, message: str) -> None:
    """A wrong key or value names itself, the file, and what is wanted."""
    with pytest.raises(ModelError, match=message):
        described(tmp_path, card)


def test_a_card_says_how_to_sample(tmp_path: Path) -> None:
    """Spacing and rescaling are the model's defaults."""
    info = described(tmp_path, {"default_timestep_spacing": "trailing", "default_guidance_rescale": 0.7})
    assert (info.timestep_spacing, info.guidance_rescale) == (TimestepSpacing.TRAILING, 0.7)


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ({"default_timestep_spacing": "even"}, "leading, linspace, trailing, align_your_steps"),
        ({"default_guidance_rescale": 2}, "a number from 0 to 1"),
        ({"zero_terminal_snr": "yes"}, "true or false"),
    ],
)
def test_sampling_that_a_card_cannot_ask_for(tmp_path: Path, card: dict[str, Any], message: str) -> None:
    """The refusal says what may stand there."""
    with pytest.raises(ModelError, match=message):
        described(tmp_path, card)


def test_a_card_sets_the_noise(tmp_path: Path) -> None:
    """Zero terminal SNR counts from the end; what the card does not say stays as the model has it."""
    path = tmp_path / "sdgrpc.json"
    path.write_text('{"prediction_type": "v_prediction", "zero_terminal_snr": true}')
    assert with_card(path, {"beta_end": 0.012, "timestep_spacing": "leading"}) == {
        "beta_end": 0.012,
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True,
        "timestep_spacing": "trailing",
    }
    assert with_card(tmp_path / "none.json", {"beta_end": 0.012}) == {"beta_end": 0.012}
