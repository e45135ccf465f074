"""Masks and margins: what goes together, and pictures widened by their margins."""

from __future__ import annotations

from collections.abc import Iterator

from sdgrpc.api import codec
from sdgrpc.api.rules import Complaint
from sdgrpc.domain import ModelInfo, Picture
from sdgrpc.images.margins import with_margins
from sdgrpc.v1 import diffusion_pb2 as pb


def widen(request: pb.InpaintRequest, pictures: dict[str, Picture], most: int) -> Iterator[Complaint]:
    """Add the margins to image and mask, in place; complain about more than `most` pixels.

    Where image and mask do not fit each other nothing is done: `mask_faults` says so.
    """
    margins, image = codec.margins(request), pictures.get("image")
    if not margins or image is None:
        return
    width, height = image.width + margins.left + margins.right, image.height + margins.top + margins.bottom
    if width * height > most:
        yield ".margins", f"make a picture of {width}x{height} pixels; the most is {most}"
        return
    mask = pictures.get("mask") or Picture(image.width, image.height, 1, bytes(image.width * image.height))
    if (mask.width, mask.height) == (image.width, image.height):
        pictures["image"] = with_margins(image, margins)
        pictures["mask"] = with_margins(mask, margins, 255)


def mask_faults(
    request: pb.InpaintRequest, model: ModelInfo | None, pictures: dict[str, Picture]
) -> Iterator[Complaint]:
    """The mask is there, as large as the image, and used as the model can."""
    image, mask = pictures.get("image"), pictures.get("mask")
    if image and mask and (image.width, image.height) != (mask.width, mask.height):
        yield (
            ".mask",
            f"is {mask.width}x{mask.height} pixels; the image is {image.width}x{image.height}, "
            "and they must be equal",
        )
    if request.HasField("margins") and not request.HasField("mask") and not codec.margins(request):
        yield ".mask", "is required where no margin is wider than 0"
    if request.mask_options.soft and model is not None and model.is_inpainting:
        yield ".mask_options.soft", f"has no meaning for {model.name!r}, which is an inpainting model"
