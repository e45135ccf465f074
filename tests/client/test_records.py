"""What the catalog's records can do."""

from __future__ import annotations

import struct

import pytest

from sdgrpc.client import LatentFormat
from sdgrpc.domain import LatentArray


def test_latents_become_pictures() -> None:
    """A latent's pixels go through the linear map and are clamped to what a picture can hold."""
    latent = LatentArray(1, 1, 3, struct.pack("<3e", 0.0, 1.0, -5.0))
    picture = LatentFormat(1, 8, (1.0, 0.0, -1.0), (0.0, 0.0, 0.0)).picture(latent)
    assert [picture.getpixel((x, 0)) for x in range(3)] == [(128, 128, 128), (255, 128, 0), (0, 128, 255)]


def test_a_latent_of_another_model() -> None:
    """Factors for one channel cannot read a latent of four."""
    with pytest.raises(ValueError, match="not one of 1 channels"):
        LatentFormat(1, 8, (1.0, 0.0, 0.0), (0.0, 0.0, 0.0)).picture(LatentArray(4, 1, 1, bytes(8)))
