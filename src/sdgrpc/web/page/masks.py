"""The painted canvas -> a picture and the mask of the contract, white where it is redrawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PIL import Image, ImageChops


def painted(value: Mapping[str, Any] | None) -> tuple[Image.Image, Image.Image] | None:
    """Return picture and mask of an ImageEditor's value; None without a picture or a stroke.

    A mask is 255 wherever a layer was painted on at all: a brush's soft edge is the mask's blur to make.
    """
    if not value or not isinstance(value.get("background"), Image.Image):
        return None
    picture = value["background"].convert("RGB")
    mask = Image.new("L", picture.size, 0)
    for layer in value.get("layers") or ():
        alpha = layer.convert("RGBA").getchannel("A")
        if alpha.size != picture.size:
            alpha = alpha.resize(picture.size, Image.Resampling.NEAREST)
        mask = ImageChops.lighter(mask, alpha.point(lambda one: 255 if one > 0 else 0))
    return (picture, mask) if mask.getbbox() else None
