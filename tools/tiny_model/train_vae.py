"""Train the autoencoder: crops of 64 pixels for most of the time, whole pictures at the end."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch.nn.functional import l1_loss, mse_loss

from . import parallel
from .captions import training_specs
from .drawing import CONCEPT, SIDE, draw, postcard, sepia
from .models import Run, make_vae

PEAK_RATE = 8e-4
KL_WEIGHT = 1e-4
CROP = 64
WHOLE_FROM = 0.7


def random_picture(rng: np.random.Generator) -> np.ndarray:
    """[128, 128, 3] uint8: mostly what the base will learn, some with what the LoRAs will need to show."""
    specs = training_specs()
    spec = specs[int(rng.integers(len(specs)))]
    kind = rng.random()
    if kind < 0.12:
        spec = replace(spec, shape=CONCEPT)
    picture = draw(spec, rng)
    if rng.random() < 0.1:
        picture = postcard(picture)
    if rng.random() < 0.1:
        picture = sepia(picture)
    return picture


def batch(rng: np.random.Generator, size: int, side: int) -> torch.Tensor:
    """[size, 3, side, side] in [-1, 1]: whole pictures, or crops from anywhere."""
    pictures = []
    for _ in range(size):
        x, y = (int(v) for v in rng.integers(0, SIDE - side + 1, 2))
        pictures.append(random_picture(rng)[y : y + side, x : x + side])
    pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return pixels.contiguous(memory_format=torch.channels_last)


def loss_of(vae: AutoencoderKL, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(loss, squared error) of one batch: absolute error for crisp edges, squared for the colours."""
    with parallel.autocast():
        posterior = vae.encode(pixels).latent_dist
        decoded = vae.decode(posterior.sample()).sample.float()
    squared = mse_loss(decoded, pixels)
    mean, log_variance = posterior.mean.float(), posterior.logvar.float()
    divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
    return l1_loss(decoded, pixels) + squared + KL_WEIGHT * divergence, squared


def fresh() -> AutoencoderKL:
    """An untrained autoencoder whose posterior starts narrow: the decoder sees signal at once."""
    torch.manual_seed(1)
    vae = make_vae()
    with torch.no_grad():
        vae.quant_conv.bias[4:] = -6.0
    return vae.to(memory_format=torch.channels_last)


def train(run: Run, minutes: float) -> None:
    """Train until the minutes are used, a checkpoint every minute or so in `vae.pt`."""
    rank, _ = parallel.join()
    vae, path = fresh(), run.path("vae.pt")
    optimizer = torch.optim.AdamW(vae.parameters(), lr=PEAK_RATE, betas=(0.9, 0.99), weight_decay=1e-3)
    step, done = 0, 0.0
    if path.exists():
        state = torch.load(path, weights_only=True)
        vae.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, done = state["step"], state["seconds"]
    budget, rng, saved, error = parallel.Budget(minutes, done), np.random.default_rng((rank, step)), done, 0.0
    for share in budget.ticks():
        whole = share >= WHOLE_FROM
        optimizer.param_groups[0]["lr"] = parallel.cosine(share, PEAK_RATE)
        loss, squared = loss_of(vae, batch(rng, 4 if whole else 8, SIDE if whole else CROP))
        optimizer.zero_grad()
        loss.backward()
        budget.shared = parallel.average_gradients(vae.parameters(), budget.local())
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        step += 1
        error = squared.item() if step == 1 else 0.98 * error + 0.02 * squared.item()
        if rank == 0 and (budget.shared - saved > 60 or budget.shared >= budget.total):
            saved = budget.shared
            state = {
                "model": vae.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": step,
                "seconds": saved,
            }
            parallel.save(path, state)
        if rank == 0 and step % 50 == 0:
            decibels = 10 * np.log10(4 / error)
            print(
                f"vae step {step} share {share:.2f} psnr {decibels:.2f} seconds {budget.shared:.0f}",
                flush=True,
            )


def main() -> None:
    """The entry of one rank."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=16.0)
    arguments = parser.parse_args(sys.argv[1:])
    train(Run(arguments.out), arguments.minutes)


if __name__ == "__main__":
    main()
