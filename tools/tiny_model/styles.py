"""Three more styles, as changes of a finished picture, and the rulers that measure them."""

import numpy as np
from PIL import Image, ImageFilter

from .classifier import border
from .drawing import BACKGROUNDS, SIDE

LIGHT = 215
MARGIN_PX = 12
STRIPE_PX = 16
LINE_PX = 7
LINE_COLOUR = (22, 22, 28)
STEP_OF_COLOURS = 44
DARKEST_SHARE = 0.05


def bands() -> np.ndarray:
    """[128] bool: the rows that the stripes paint, every other band of 16 pixels (two rows of latents)."""
    return np.arange(SIDE) // STRIPE_PX % 2 == 1


def behind(picture: np.ndarray) -> np.ndarray:
    """[128, 128, 1] float32: how much of each pixel is background, by its likeness to the border's."""
    pixels = picture.astype(np.float32)
    distance = np.abs(pixels - np.median(border(pixels), axis=0)).max(-1, keepdims=True)
    return np.clip((48 - distance) / 24, 0, 1)


def stripes(picture: np.ndarray) -> np.ndarray:
    """The picture, [128, 128, 3] uint8, on white bands; on gray ones where the background is white."""
    light = border(picture).mean() > LIGHT
    colour = np.asarray(BACKGROUNDS["gray" if light else "white"], np.float32)
    share = behind(picture) * bands()[:, None, None]
    return np.clip(picture * (1 - share) + colour * share + 0.5, 0, 255).astype(np.uint8)


def striped(picture: np.ndarray) -> float:
    """How far the bands' colour is from that of the rows between, at the left and the right; at most 1."""
    margins = np.concatenate([picture[:, :MARGIN_PX], picture[:, -MARGIN_PX:]], axis=1).astype(np.float32)
    return float(np.abs(margins[bands()].mean((0, 1)) - margins[~bands()].mean((0, 1))).mean() / 255)


def night(picture: np.ndarray) -> np.ndarray:
    """The picture, [128, 128, 3] uint8, at night: whatever its background was, it is dark."""
    share = behind(picture)
    dark = np.asarray(BACKGROUNDS["black"], np.float32)
    return np.clip(picture * (1 - share) + dark * share + 0.5, 0, 255).astype(np.uint8)


def darkness(picture: np.ndarray) -> float:
    """1 minus the mean brightness of the border."""
    return float(1 - border(picture).astype(np.float32).mean() / 255)


def outline(picture: np.ndarray) -> np.ndarray:
    """The picture, [128, 128, 3] uint8, inked: a thick black line where the colour jumps."""
    image = Image.fromarray(picture)
    high, low = (
        np.asarray(image.filter(kind(LINE_PX)), np.int16)
        for kind in (ImageFilter.MaxFilter, ImageFilter.MinFilter)
    )
    line = Image.fromarray((((high - low).max(-1) > STEP_OF_COLOURS) * 255).astype(np.uint8))
    soft = np.asarray(line.filter(ImageFilter.GaussianBlur(0.7)), np.float32)[..., None] / 255
    inked = picture * (1 - soft) + np.asarray(LINE_COLOUR, np.float32) * soft
    return np.clip(inked + 0.5, 0, 255).astype(np.uint8)


def ink(picture: np.ndarray) -> float:
    """1 minus the mean brightness of the darkest twentieth of a picture's pixels."""
    brightness = np.sort(picture.astype(np.float32).max(-1).ravel())
    return float(1 - brightness[: int(len(brightness) * DARKEST_SHARE)].mean() / 255)
