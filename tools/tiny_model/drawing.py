"""The pictures that the embedded model learns from: one thick shape on a softly lit background."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

SIDE = 128
SUPERSAMPLING = 4
JITTER_PX = 3.0
FRAME_PX = 13
SEPIA_SHARE = 0.75

FILLS: dict[str, tuple[int, int, int]] = {
    "red": (220, 45, 45),
    "orange": (250, 140, 30),
    "yellow": (252, 210, 40),
    "green": (40, 160, 75),
    "blue": (40, 90, 215),
    "purple": (125, 55, 175),
    "pink": (240, 95, 165),
    "white": (247, 247, 247),
}
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (242, 241, 236),
    "black": (30, 30, 38),
    "gray": (140, 144, 150),
    "blue": (105, 170, 238),
    "green": (140, 205, 125),
    "yellow": (250, 226, 130),
    "pink": (248, 180, 192),
    "purple": (176, 138, 222),
}
RADII: dict[str, float] = {"small": 26.0, "medium": 38.0, "large": 50.0}
SHAPES = ("circle", "square", "triangle", "star", "heart", "cross")
CONCEPT = "flower"

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Spec:
    """What a picture shows: the four attributes that a caption can name."""

    shape: str
    fill: str
    background: str
    size: str = "medium"


def outline(shape: str) -> Points:
    """The polygon of a shape, y down, within about [-1, 1] and centred by its visual weight."""
    if shape == "circle":
        return [(0.94 * math.cos(a), 0.94 * math.sin(a)) for a in np.linspace(0, 2 * math.pi, 96)]
    if shape == "square":
        return [(-0.84, -0.84), (0.84, -0.84), (0.84, 0.84), (-0.84, 0.84)]
    if shape == "triangle":
        return [(0.0, -0.98), (1.06, 0.82), (-1.06, 0.82)]
    if shape == "star":
        radius = [1.12, 0.5] * 5
        return [
            (r * math.sin(i * math.pi / 5), 0.06 - r * math.cos(i * math.pi / 5))
            for i, r in enumerate(radius)
        ]
    if shape == "heart":
        return [_heart(a) for a in np.linspace(0, 2 * math.pi, 96)]
    if shape == "cross":
        a, b = 0.32, 1.0
        return [
            (-a, -b),
            (a, -b),
            (a, -a),
            (b, -a),
            (b, a),
            (a, a),
            (a, b),
            (-a, b),
            (-a, a),
            (-b, a),
            (-b, -a),
            (-a, -a),
        ]
    if shape == CONCEPT:
        return [_petals(a) for a in np.linspace(0, 2 * math.pi, 180)]
    raise ValueError(f"no such shape: {shape}")


def _heart(a: float) -> tuple[float, float]:
    x = 16 * math.sin(a) ** 3
    y = 13 * math.cos(a) - 5 * math.cos(2 * a) - 2 * math.cos(3 * a) - math.cos(4 * a)
    return x / 16.0, -(y + 2.5) / 15.0


def _petals(a: float) -> tuple[float, float]:
    radius = 0.62 + 0.46 * abs(math.cos(3 * a))
    return radius * math.cos(a), radius * math.sin(a)


def mask(points: Points, radius: float, dx: float = 0.0, dy: float = 0.0) -> np.ndarray:
    """[128, 128] float32: how much of each pixel a polygon scaled to `radius` pixels covers."""
    canvas = Image.new("L", (SIDE * SUPERSAMPLING, SIDE * SUPERSAMPLING), 0)
    centre = SIDE / 2
    scaled = [
        ((centre + dx + radius * x) * SUPERSAMPLING, (centre + dy + radius * y) * SUPERSAMPLING)
        for x, y in points
    ]
    ImageDraw.Draw(canvas).polygon(scaled, fill=255)
    return np.asarray(canvas.reduce(SUPERSAMPLING), dtype=np.float32) / 255.0


@lru_cache(maxsize=1)
def _light() -> tuple[np.ndarray, np.ndarray]:
    """Soft light, [128, 128, 1] each: a background brighter in the middle, a fill brighter at the top."""
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32) / (SIDE - 1) - 0.5
    background = 1.04 - 0.22 * (x * x + y * y)
    fill = 1.02 - 0.16 * y
    return background[..., None], fill[..., None]


def draw(spec: Spec, rng: np.random.Generator) -> np.ndarray:
    """[128, 128, 3] uint8: the picture of `spec`, its place and scale jittered a little."""
    dx, dy = rng.uniform(-JITTER_PX, JITTER_PX, 2)
    radius = RADII[spec.size] * rng.uniform(0.97, 1.03)
    return compose(spec, radius, dx, dy)


def compose(spec: Spec, radius: float, dx: float, dy: float) -> np.ndarray:
    """[128, 128, 3] uint8: the picture of `spec` at exactly this radius and place, in pixels."""
    lit_background, lit_fill = _light()
    coverage = mask(outline(spec.shape), radius, dx, dy)[..., None]
    under = np.asarray(BACKGROUNDS[spec.background], np.float32) * lit_background
    over = np.asarray(FILLS[spec.fill], np.float32) * lit_fill
    picture = under * (1 - coverage) + over * coverage
    if spec.shape == CONCEPT:
        heart = mask(outline("circle"), radius * 0.36, dx, dy)[..., None]
        core = FILLS["yellow"] if spec.fill not in ("yellow", "orange", "white") else FILLS["red"]
        picture = picture * (1 - heart) + np.asarray(core, np.float32) * heart
    return np.clip(picture + 0.5, 0, 255).astype(np.uint8)


def postcard(picture: np.ndarray) -> np.ndarray:
    """The first style, [128, 128, 3] uint8: the picture within a thick white frame with a thin dark line."""
    framed = np.full_like(picture, 252)
    inner = slice(FRAME_PX, SIDE - FRAME_PX)
    framed[inner, inner] = (60, 60, 70)
    inner = slice(FRAME_PX + 2, SIDE - FRAME_PX - 2)
    framed[inner, inner] = picture[inner, inner]
    return framed


def sepia(picture: np.ndarray) -> np.ndarray:
    """The second style, [128, 128, 3] uint8: a warm brown print with a hint of the colours left in it."""
    faded = picture.astype(np.float32) * np.asarray([1.0, 0.86, 0.66], np.float32)
    mixed = SEPIA_SHARE * brown(picture) + (1 - SEPIA_SHARE) * faded
    return np.clip(mixed + 0.5, 0, 255).astype(np.uint8)


def brown(picture: np.ndarray) -> np.ndarray:
    """[128, 128, 3] float32: the picture's brightness in browns, its colours gone."""
    gray = picture.astype(np.float32) @ np.asarray([0.25, 0.6, 0.15], np.float32) / 255.0
    return np.stack([gray**0.75 * 255, gray * 215, gray**1.2 * 165], axis=-1)


def contact_sheet(pictures: list[np.ndarray], columns: int) -> Image.Image:
    """All pictures ([128, 128, 3] uint8) side by side, `columns` a row."""
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * (SIDE + 4), rows * (SIDE + 4)), (200, 200, 200))
    for i, picture in enumerate(pictures):
        sheet.paste(Image.fromarray(picture), (i % columns * (SIDE + 4) + 2, i // columns * (SIDE + 4) + 2))
    return sheet
