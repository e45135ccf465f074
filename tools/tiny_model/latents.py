"""What the denoiser trains on, made once: latents of drawn pictures and features of their captions."""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch.nn.functional import avg_pool2d

from . import parallel
from .captions import caption, training_specs
from .classifier import to_pixels
from .drawing import Spec, draw
from .export import load_text_encoder, load_vae
from .models import LATENT_STD, Run, make_tokenizer, tokenize

PICTURES = 28000
CAPTIONS_EACH = 2
BATCH = 50


@dataclass(frozen=True)
class Cache:
    """Latents [N, 4, 16, 16] (unscaled means), features [N, K, 77, 128] bfloat16, empty [77, 128]."""

    latents: torch.Tensor
    features: torch.Tensor
    empty: torch.Tensor

    def batch(self, size: int, drop: float, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents [size, 4, 16, 16] and features [size, 77, 128], a share `drop` the empty caption's."""
        index = torch.randint(len(self.latents), (size,), generator=generator)
        which = torch.randint(self.features.shape[1], (size,), generator=generator)
        features = self.features[index, which].float()
        features[torch.rand(size, generator=generator) < drop] = self.empty
        return self.latents[index], features


@torch.no_grad()
def encode_pictures(vae: AutoencoderKL, pictures: np.ndarray) -> torch.Tensor:
    """[B, 4, 16, 16] float32: the posterior means, unscaled, of pictures [B, 128, 128, 3] uint8."""
    with parallel.autocast():
        pixels = to_pixels(pictures).contiguous(memory_format=torch.channels_last)
        return vae.encode(pixels).latent_dist.mean.float()


@torch.no_grad()
def decode_latents(vae: AutoencoderKL, latents: torch.Tensor) -> np.ndarray:
    """[B, 128, 128, 3] uint8 pictures of scaled latents [B, 4, 16, 16], as a pipeline makes them."""
    parts = [vae.decode(part / vae.config.scaling_factor).sample for part in latents.split(8)]
    pixels = torch.cat(parts).clamp(-1, 1).permute(0, 2, 3, 1)
    return ((pixels + 1) * 127.5).round().to(torch.uint8).numpy()


def encode_texts(run: Run, texts: list[str]) -> torch.Tensor:
    """[B, 77, 128] text features of the run's frozen encoder."""
    encoder, tokenizer = load_text_encoder(run), make_tokenizer(run)
    with torch.no_grad():
        parts = [
            encoder(tokenize(tokenizer, texts[i : i + 64])).last_hidden_state
            for i in range(0, len(texts), 64)
        ]
    return torch.cat(parts)


def make(
    run: Run,
    specs: list[Spec],
    count: int,
    rng: np.random.Generator,
    change: Callable[[np.ndarray], np.ndarray],
) -> Cache:
    """A cache of `count` pictures of `specs`, each changed by `change` (a style) before it is encoded."""
    vae = load_vae(run).to(memory_format=torch.channels_last)
    chosen = [specs[int(i)] for i in rng.integers(0, len(specs), count)]
    latents = [
        encode_pictures(vae, np.stack([change(draw(spec, rng)) for spec in chosen[i : i + BATCH]]))
        for i in range(0, count, BATCH)
    ]
    texts = [caption(spec, rng).text for spec in chosen for _ in range(CAPTIONS_EACH)]
    features = encode_texts(run, ["", *texts])
    return Cache(
        torch.cat(latents), features[1:].bfloat16().unflatten(0, (count, CAPTIONS_EACH)), features[0]
    )


def save(cache: Cache, path: Path) -> None:
    """Write a cache as a file."""
    parallel.save(path, {"latents": cache.latents, "features": cache.features, "empty": cache.empty})


def load(path: Path) -> Cache:
    """Read a cache that `save` wrote."""
    return Cache(**torch.load(path, weights_only=True))


def write_statistics(run: Run) -> None:
    """Fit and write `latents.json`: the scaling factor and the linear map to preview colours."""
    vae, rng, specs = load_vae(run), np.random.default_rng(23), training_specs()
    pictures = np.stack([draw(specs[int(i)], rng) for i in rng.integers(0, len(specs), 500)])
    latents = torch.cat([encode_pictures(vae, part) for part in np.array_split(pictures, 10)])
    scale = LATENT_STD / float(latents.std())
    inputs = (latents * scale).permute(0, 2, 3, 1).reshape(-1, 4)
    inputs = torch.cat([inputs, torch.ones(len(inputs), 1)], dim=1)
    colours = avg_pool2d(to_pixels(pictures), 8).permute(0, 2, 3, 1).reshape(-1, 3)
    solution = torch.linalg.lstsq(inputs, colours).solution
    rounded = [[round(float(v), 5) for v in row] for row in solution]
    statistics = {
        "scaling_factor": round(scale, 5),
        "latent_rgb_factors": rounded[:4],
        "latent_rgb_bias": rounded[4],
    }
    residual = float((inputs @ solution - colours).std())
    print(
        f"latents mean {latents.mean((0, 2, 3)).tolist()} std {latents.std((0, 2, 3)).tolist()}",
        f"rgb residual {residual:.3f}",
    )
    run.path("latents.json").write_text(json.dumps(statistics, indent=2) + "\n")


def main() -> None:
    """The entry of one rank: make this rank's cache for the UNet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    rank, ranks = parallel.join()
    run = Run(parser.parse_args().out)
    path = run.path(f"cache_{rank}.pt")
    if not path.exists():
        save(
            make(run, training_specs(), PICTURES // ranks, np.random.default_rng((31, rank)), lambda p: p),
            path,
        )


if __name__ == "__main__":
    main()
