"""What the captions say: words, phrasings, and the combinations held out of all training."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .drawing import BACKGROUNDS, FILLS, RADII, SHAPES, Spec

ANY = "any"
WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "shape": {
        "circle": ("circle", "circle", "disc"),
        "square": ("square", "square", "box"),
        "triangle": ("triangle",),
        "star": ("star",),
        "heart": ("heart",),
        "cross": ("cross", "cross", "plus"),
    },
    "fill": {name: (name,) for name in FILLS}
    | {
        "red": ("red", "red", "crimson"),
        "yellow": ("yellow", "yellow", "golden"),
        "purple": ("purple", "purple", "violet"),
    },
    "background": {name: (name,) for name in BACKGROUNDS}
    | {"gray": ("gray", "grey"), "black": ("black", "black", "dark")},
    "size": {
        "small": ("small", "little", "tiny"),
        "medium": ("", "", "medium"),
        "large": ("large", "big", "huge"),
    },
}
TEMPLATES = (
    "a {size} {fill} {shape} on a {background} background",
    "a {size} {fill} {shape} on a {background} background",
    "a {size} {fill} {shape} on {background}",
    "{size} {fill} {shape}, {background} background",
    "{fill} {shape} on {background}, {size}",
    "the {size} {fill} {shape} in front of a {background} background",
    "one {size} {shape} in {fill}, {background} backdrop",
    "a {shape}, {fill}, {size}, on a {background} background",
    "a {size} {shape} in {fill} on a {background} background",
    "{background} background with a {size} {fill} {shape}",
    "on a {background} background, a {size} {fill} {shape}",
    "a {background} scene with a {size} {fill} {shape}",
)
TEMPLATES_NO_BACKGROUND = ("a {size} {fill} {shape}", "{size} {fill} {shape}", "the {size} {shape} in {fill}")
TEMPLATES_NO_FILL = (
    "a {size} {shape} on a {background} background",
    "{size} {shape}, {background} background",
)
PREFIXES = (
    "",
    "",
    "",
    "",
    "a picture of ",
    "a drawing of ",
    "an icon of ",
    "an image of ",
    "a poster of ",
    "a painting of ",
    "a photo of ",
)
SUFFIXES = (
    "",
    "",
    "",
    "",
    "",
    ", simple",
    ", clean",
    ", flat design",
    ", vector art",
    ", high quality",
    ", centered",
    ", minimal",
    ".",
)

HELD_OUT_PAIRS = frozenset({("star", "red"), ("heart", "blue"), ("circle", "purple"), ("triangle", "pink")})
HELD_OUT_SHARE = 0.1


@dataclass(frozen=True)
class Caption:
    """A caption and what it says: the class of each attribute, `any` where it says nothing."""

    text: str
    shape: str
    fill: str
    background: str
    size: str


@lru_cache(maxsize=1)
def held_out_combinations() -> frozenset[tuple[str, str, str]]:
    """(shape, fill, background) that no training picture shows: whole pairs, and a share of the others."""
    rng = np.random.default_rng(7)
    combinations = [(s, f, b) for s in SHAPES for f in FILLS for b in BACKGROUNDS if f != b]
    return frozenset(c for c in combinations if c[:2] in HELD_OUT_PAIRS or rng.random() < HELD_OUT_SHARE)


def training_specs() -> list[Spec]:
    """Every combination that may be trained on, in a fixed order."""
    held = held_out_combinations()
    return [
        Spec(s, f, b, z)
        for s in SHAPES
        for f in FILLS
        for b in BACKGROUNDS
        for z in RADII
        if f != b and (s, f, b) not in held
    ]


def caption(spec: Spec, rng: np.random.Generator) -> Caption:
    """One of many phrasings of `spec`; a few leave the background or the fill open."""
    open_end = rng.random()
    templates = (
        TEMPLATES_NO_BACKGROUND if open_end < 0.05 else TEMPLATES_NO_FILL if open_end < 0.08 else TEMPLATES
    )
    words = {
        "shape": _pick(WORDS["shape"].get(spec.shape, (spec.shape,)), rng),
        "fill": _pick(WORDS["fill"][spec.fill], rng),
        "background": _pick(WORDS["background"][spec.background], rng),
        "size": _pick(WORDS["size"][spec.size], rng),
    }
    text = _pick(PREFIXES, rng) + _pick(templates, rng).format(**words) + _pick(SUFFIXES, rng)
    return Caption(
        tidy(text),
        spec.shape,
        ANY if templates is TEMPLATES_NO_FILL else spec.fill,
        ANY if templates is TEMPLATES_NO_BACKGROUND else spec.background,
        spec.size,
    )


def held_out_prompts(count: int) -> list[Caption]:
    """`count` prompts of combinations never trained on, every other one from a whole pair never seen."""
    rng = np.random.default_rng(11)
    held = sorted(held_out_combinations())
    pairs = [c for c in held if c[:2] in HELD_OUT_PAIRS]
    others = [c for c in held if c[:2] not in HELD_OUT_PAIRS]
    prompts: list[Caption] = []
    while len(prompts) < count:
        pool = pairs if len(prompts) % 2 else others
        shape, fill, background = pool[rng.integers(len(pool))]
        said = caption(Spec(shape, fill, background, _pick(tuple(RADII), rng)), rng)
        if ANY not in (said.fill, said.background):
            prompts.append(said)
    return prompts


def tidy(text: str) -> str:
    """The text without the gaps that an empty size leaves, and with the right article."""
    text = " ".join(text.split()).replace(" ,", ",").replace(",,", ",").strip(" ,")
    return text.replace("a orange", "an orange")


def _pick(options: tuple[str, ...], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]
