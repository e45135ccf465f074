"""Masks: blur, crop, the latent mask, and the known pixels pasted back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image, ImageFilter
from torch.nn import functional as F

from sdgrpc.diffusion.pictures.autoencoder import to_tensor
from sdgrpc.diffusion.pictures.filling import filled
from sdgrpc.diffusion.pictures.resizing import resized
from sdgrpc.domain import MaskedContent, Picture, Task, TaskKind
from sdgrpc.images import to_image, to_picture

Box = tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class Region:
    """The part of the input that is redrawn, made once for all pictures of a job.

    `box` is (left, top, right, bottom) in the input's pixels. `image` (RGB) and `mask` (L, blurred; white is
    redrawn) are that part at the task's size; `content` is what the masked part starts from. `known` is the
    whole input and the part of its mask in the box, where what was redrawn is pasted back at its place; None
    where it is the result as it is drawn.
    """

    box: Box
    image: Image.Image
    mask: Image.Image
    content: Image.Image
    known: tuple[Image.Image, Image.Image] | None = None
    cover: bool = False
    soft: bool = False

    def latent_mask(self, height: int, width: int) -> torch.Tensor:
        """The mask at the latents' size, `[1, 1, height, width]` in [0, 1].

        By nearest neighbour, as diffusers' inpainting pipeline samples it, but greys are kept; with `cover`
        the greatest value in each cell.
        """
        if self.cover:
            return F.adaptive_max_pool2d(to_tensor(self.mask), (height, width))
        return F.interpolate(to_tensor(self.mask), size=(height, width))

    def masked_pixels(self) -> torch.Tensor:
        """The image in [-1, 1], `[1, 3, H, W]`, grey (0) wherever more than half of it is redrawn."""
        pixels = to_tensor(self.image) * 2 - 1
        return pixels * (to_tensor(self.mask) < 0.5)

    def paste(self, picture: Picture) -> Picture:
        """Put the known pixels back around, and under the greys of, what was redrawn."""
        redrawn = to_image(picture)
        if self.known is None:
            return to_picture(Image.composite(redrawn, self.image, self._pasted(self.mask)))
        image, mask = self.known
        mask = self._pasted(mask)
        left, top, right, bottom = self.box
        result = image.copy()
        result.paste(resized(redrawn, right - left, bottom - top), self.box, mask)
        return to_picture(result)

    def _pasted(self, mask: Image.Image) -> Image.Image:
        """How much of the redrawn pixels is taken: nearly all under soft greys, since they fit already."""
        return (
            mask.point([round(255 * (1 - (1 - level / 255) ** 4)) for level in range(256)])
            if self.soft
            else mask
        )


def region(task: Task) -> Region:
    """The part of the task's input to redraw: all of it, or a crop where `mask_options` ask for one."""
    image, mask = _inputs(task)
    box = crop_box(mask, task.mask_options.crop_padding, task.width, task.height)
    has_inputs_size = task.mask_options.crop_padding is not None or task.keeps_size
    part = resized(image.crop(box), task.width, task.height, task.resize_mode)
    # No Lanczos here: it rings, and would redraw a little beside the mask.
    small = resized(mask.crop(box), task.width, task.height, task.resize_mode, Image.Resampling.BILINEAR)
    options = task.mask_options
    return Region(
        box=box,
        image=part,
        mask=small,
        content=filled(part, small) if options.masked_content is MaskedContent.FILL else part,
        known=(image, mask.crop(box)) if has_inputs_size else None,
        cover=options.cover,
        soft=options.soft,
    )


def finish(task: Task, pictures: Sequence[Picture], made: Region | None = None) -> list[Picture]:
    """Paste the known pixels back: exactly the input's where the mask is black, blended where it is grey.

    With `crop_padding` or `keeps_size` what was redrawn is scaled back to its place and the result has the
    input's size; else it has the task's size, and the input is resized to it if need be. Other kinds of task
    pass unchanged. `made` is the task's region, where its maker has it already.
    """
    if task.kind is not TaskKind.INPAINT:
        return list(pictures)
    made = made or region(task)
    return [made.paste(picture) for picture in pictures]


def crop_box(mask: Image.Image, padding: int | None, width: int, height: int) -> Box:
    """The box around the mask with `padding` pixels, widened towards the proportions `width`:`height`.

    As A1111's "only masked" chooses it: widening stays inside the image, so a box that reaches both edges
    keeps other proportions. The whole image where `padding` is None or nothing is masked.
    """
    bounds = mask.getbbox()
    if padding is None or bounds is None:
        return (0, 0, mask.width, mask.height)
    left, top, right, bottom = bounds
    left, right = max(left - padding, 0), min(right + padding, mask.width)
    top, bottom = max(top - padding, 0), min(bottom + padding, mask.height)
    wanted_width = round((bottom - top) * width / height)
    wanted_height = round((right - left) * height / width)
    left, right = _widened(left, right, wanted_width, mask.width)
    top, bottom = _widened(top, bottom, wanted_height, mask.height)
    return (left, top, right, bottom)


def _widened(start: int, end: int, wanted: int, limit: int) -> tuple[int, int]:
    """Grow [start, end) to `wanted` around its middle, shifted to stay in [0, limit); never shrink it."""
    length = min(max(wanted, end - start), limit)
    first = start - (length - (end - start)) // 2
    first = min(max(first, 0), limit - length)
    return first, first + length


def _inputs(task: Task) -> tuple[Image.Image, Image.Image]:
    """The task's image and its blurred mask, at the input's size."""
    if task.image is None or task.mask is None:
        raise ValueError("an inpainting task has an image and a mask")
    mask = to_image(task.mask)
    if task.mask_options.blur > 0:
        mask = mask.filter(ImageFilter.GaussianBlur(task.mask_options.blur))
    return to_image(task.image), mask
