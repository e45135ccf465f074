"""The models that tasks can name."""

from __future__ import annotations

from dataclasses import dataclass

from sdgrpc.domain.sampling import Scheduler, TimestepSpacing


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model that tasks can name, and its defaults.

    `base` is `sd15`, `sd2`, `sdxl` or `embedded`. `latent_rgb_factors` is `[latent_channels][3]` and maps a
    latent to RGB in [-1, 1] together with `latent_rgb_bias`. `timestep_spacing` None is the scheduler's own.
    `tiny_decoder` tells whether it has one beside its VAE. With `zero_terminal_snr` the noise schedule ends
    without signal.
    """

    name: str
    base: str
    title: str
    description: str
    width: int
    height: int
    steps: int
    guidance_scale: float
    scheduler: Scheduler
    is_inpainting: bool
    latent_channels: int
    vae_scale_factor: int
    prediction_type: str
    text_encoder_layers: int
    latent_rgb_factors: tuple[tuple[float, float, float], ...]
    latent_rgb_bias: tuple[float, float, float]
    timestep_spacing: TimestepSpacing | None = None
    guidance_rescale: float = 0.0
    zero_terminal_snr: bool = False
    tiny_decoder: bool = False


@dataclass(frozen=True, slots=True)
class ModelState:
    """A configured model and its weights: `dtype` is the UNet's, as `float32`, `float16` or `bfloat16`.

    `size_bytes` is what the weights take in memory, or took when they were there last; 0 until they were
    loaded once. `sha256` is that of its file or files; empty until it was computed.
    """

    info: ModelInfo
    dtype: str
    resident: bool
    size_bytes: int
    sha256: str = ""
