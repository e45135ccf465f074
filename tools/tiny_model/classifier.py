"""Reads a picture: the shape by a small network trained on drawings, the colours from the pixels."""

import time
from itertools import count, pairwise

import numpy as np
import torch
from torch import nn
from torch.nn.functional import avg_pool2d, cross_entropy

from . import parallel
from .captions import training_specs
from .drawing import BACKGROUNDS, CONCEPT, FILLS, RADII, SHAPES, SIDE, Spec, draw, postcard, sepia
from .models import Run

CLASSES = (*SHAPES, CONCEPT)
BATCH = 48
PEAK_RATE = 3e-3
BORDER_PX = 7
CENTRE_PX = 8


class ShapeNet(nn.Sequential):
    """[B, 3, 64, 64] in [-1, 1] to scores [B, 7]; about 40,000 weights."""

    def __init__(self) -> None:
        widths, layers = (3, 16, 24, 40, 56), []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, 2, 1), nn.GroupNorm(4, after), nn.SiLU()]
        super().__init__(*layers, nn.Dropout2d(0.1), nn.Flatten(), nn.Linear(56 * 16, len(CLASSES)))


def random_spec(rng: np.random.Generator, shape: str) -> Spec:
    """A `shape` in any colours and size, held-out combinations too: the judge may know them all."""
    fill, background = (str(rng.choice(tuple(names))) for names in (FILLS, BACKGROUNDS))
    return Spec(shape, fill, background if background != fill else "black", str(rng.choice(tuple(RADII))))


def sample(rng: np.random.Generator, size: int, rough: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """([size, 3, 128, 128] in [-1, 1], labels [size]); `rough` adds frames, tints, noise and blur."""
    labels = rng.integers(0, len(CLASSES), size)
    pictures = []
    for label in labels:
        picture = draw(random_spec(rng, CLASSES[label]), rng)
        if rough and rng.random() < 0.1:
            picture = postcard(picture)
        if rough and rng.random() < 0.1:
            picture = sepia(picture)
        pictures.append(picture)
    pixels = to_pixels(np.stack(pictures))
    if rough:
        soft = avg_pool2d(pixels, 5, 1, 2, count_include_pad=False)
        blend = torch.from_numpy(rng.random((size, 1, 1, 1))).float()
        level = torch.from_numpy(rng.random((size, 1, 1, 1)) ** 2 * 0.5).float()
        pixels = pixels.lerp(soft, blend) + level * torch.randn_like(pixels)
    return pixels, torch.from_numpy(labels)


def to_pixels(pictures: np.ndarray) -> torch.Tensor:
    """[B, 128, 128, 3] uint8 to [B, 3, 128, 128] float32 in [-1, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def train(run: Run, minutes: float) -> None:
    """Train on one thread and write `classifier.pt` with its accuracy on fresh clean drawings."""
    torch.set_num_threads(1)
    torch.manual_seed(4)
    net, rng, started = ShapeNet(), np.random.default_rng(17), time.monotonic()
    optimizer = torch.optim.AdamW(net.parameters(), lr=PEAK_RATE, weight_decay=1e-2)
    for step in count():
        share = (time.monotonic() - started) / (60 * minutes)
        if share >= 1:
            break
        optimizer.param_groups[0]["lr"] = parallel.cosine(share, PEAK_RATE)
        pixels, labels = sample(rng, BATCH, rough=True)
        loss = cross_entropy(net(avg_pool2d(pixels, 2)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 100 == 0:
            print(f"classifier step {step} share {share:.2f} loss {loss.item():.4f}", flush=True)
    pixels, labels = sample(np.random.default_rng(99), 2000, rough=False)
    accuracy = float((shape_probabilities(net.eval(), pixels).argmax(1) == labels).float().mean())
    print(f"classifier accuracy {accuracy:.4f} on 2000 fresh drawings", flush=True)
    parallel.save(run.path("classifier.pt"), {"model": net.state_dict(), "accuracy": accuracy, "step": step})


def load(run: Run) -> tuple[ShapeNet, float]:
    """The trained classifier of a run and its accuracy."""
    state = torch.load(run.path("classifier.pt"), weights_only=True)
    net = ShapeNet()
    net.load_state_dict(state["model"])
    return net.eval().requires_grad_(False), state["accuracy"]


@torch.no_grad()
def shape_probabilities(net: ShapeNet, pixels: torch.Tensor) -> torch.Tensor:
    """[B, 7] probabilities of `CLASSES` for pictures [B, 3, 128, 128] in [-1, 1]."""
    return net(avg_pool2d(pixels.float(), 2)).softmax(-1)


def shapes(net: ShapeNet, pixels: torch.Tensor) -> list[str]:
    """The most likely shape of each picture [B, 3, 128, 128] in [-1, 1]."""
    return [CLASSES[i] for i in shape_probabilities(net, pixels).argmax(1).tolist()]


def fill_of(picture: np.ndarray) -> str:
    """The fill whose colour is nearest to the median of the middle of a picture [128, 128, 3] uint8."""
    middle = slice(SIDE // 2 - CENTRE_PX, SIDE // 2 + CENTRE_PX)
    return _nearest(np.median(picture[middle, middle].reshape(-1, 3), axis=0), FILLS)


def background_of(picture: np.ndarray) -> str:
    """The background whose colour is nearest to the median of the border of a picture [128, 128, 3] uint8."""
    return _nearest(np.median(border(picture), axis=0), BACKGROUNDS)


def border(picture: np.ndarray) -> np.ndarray:
    """[N, 3]: the pixels of the outermost ring of a picture [128, 128, 3]."""
    ring = np.ones((SIDE, SIDE), bool)
    ring[BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX] = False
    return picture[ring]


def _nearest(colour: np.ndarray, palette: dict[str, tuple[int, int, int]]) -> str:
    return min(palette, key=lambda name: float(np.linalg.norm(colour - np.asarray(palette[name]))))


def check_palettes(count_: int = 300) -> dict[str, float]:
    """How often the colours of drawings in training are measured right: the ruler's own accuracy."""
    rng, specs = np.random.default_rng(1), training_specs()
    chosen = [specs[int(i)] for i in rng.integers(0, len(specs), count_)]
    drawn = [(spec, draw(spec, rng)) for spec in chosen]
    return {
        "fill": sum(fill_of(p) == s.fill for s, p in drawn) / count_,
        "background": sum(background_of(p) == s.background for s, p in drawn) / count_,
    }
