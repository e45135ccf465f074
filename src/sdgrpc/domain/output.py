"""What to send, and in which format."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class PreviewKind(Enum):
    """What a preview holds."""

    NONE = "none"
    PICTURE = "picture"
    LATENT = "latent"
    DECODED = "decoded"


class Decoder(Enum):
    """What makes pictures of latents; see `Decoder` of the contract."""

    VAE = "vae"
    TINY = "tiny"


@dataclass(frozen=True, slots=True)
class PreviewOptions:
    """When to send previews and of what. `max_side` 0 is the latent's own size."""

    kind: PreviewKind = PreviewKind.NONE
    every_n_steps: int = 1
    max_side: int = 0


@dataclass(frozen=True, slots=True)
class Output:
    """How to send the finished images."""

    media_type: str = "image/png"
    quality: int = 90
    preview: PreviewOptions = PreviewOptions()
    omit_metadata: bool = False
    decoder: Decoder = Decoder.VAE
