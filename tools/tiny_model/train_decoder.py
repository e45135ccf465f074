"""Train a tiny autoencoder (TAESD's kind) to decode latents as the embedded model's VAE does.

Pictures of the training set go through the VAE; the tiny decoder learns what it makes of their latents.
Some of the latents are means of two, since what is predicted at early steps is one of many pictures.
"""

import argparse
import multiprocessing
import sys
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from torch.nn.functional import l1_loss, mse_loss

from . import parallel
from .models import ASSETS
from .train_vae import random_picture

PEAK_RATE = 2e-3
BLENDED = 0.25
HELD_OUT = 256
CHANNELS, BLOCKS = 24, (2, 2, 2, 1)
ENCODER_CHANNELS, ENCODER_BLOCKS = 8, (1, 1, 1, 1)


def make() -> AutoencoderTiny:
    """An untrained one: scaled latents [B, 4, 16, 16] to pixels [B, 3, 128, 128] in [-1, 1], and back."""
    torch.manual_seed(2)
    return AutoencoderTiny(
        encoder_block_out_channels=(ENCODER_CHANNELS,) * 4,
        decoder_block_out_channels=(CHANNELS,) * 4,
        num_encoder_blocks=ENCODER_BLOCKS,
        num_decoder_blocks=BLOCKS,
    )


def _pictures(seed: int) -> np.ndarray:
    rng = np.random.default_rng((seed, 77))
    return np.stack([random_picture(rng) for _ in range(64)])


def pictures(count: int) -> torch.Tensor:
    """[count, 3, 128, 128] uint8, drawn by every core."""
    with multiprocessing.get_context("fork").Pool() as pool:
        drawn = pool.map(_pictures, range((count + 63) // 64))
    return torch.from_numpy(np.concatenate(drawn)[:count]).permute(0, 3, 1, 2).contiguous()


@torch.no_grad()
def latents_of(vae: AutoencoderKL, pixels: torch.Tensor) -> torch.Tensor:
    """Scaled latents of pixels in [-1, 1]."""
    return vae.encode(pixels).latent_dist.sample() * vae.config.scaling_factor


@torch.no_grad()
def decoded_by(vae: AutoencoderKL, latents: torch.Tensor) -> torch.Tensor:
    """What the tiny decoder should make of them, in [-1, 1]."""
    return vae.decode(latents / vae.config.scaling_factor).sample.clamp(-1, 1)


@torch.no_grad()
def decibels(tiny: AutoencoderTiny, vae: AutoencoderKL, pixels: torch.Tensor) -> float:
    """The mean over pictures of PSNR against the VAE's decoding."""
    found = []
    for part in torch.split(pixels, 32):
        latents = latents_of(vae, part)
        made = tiny.decode(latents).sample.clamp(-1, 1)
        squared = (made - decoded_by(vae, latents)).pow(2).mean(dim=(1, 2, 3))
        found += [10 * torch.log10(4 / squared)]
    return float(torch.cat(found).mean())


def train(folder: Path, minutes: float, device: str, count: int, size: int) -> None:
    """Train for some minutes and write the folder, in float16."""
    data = pictures(count + HELD_OUT).to(device)
    vae = AutoencoderKL.from_pretrained(ASSETS / "model" / "vae", torch_dtype=torch.float32)
    vae = vae.eval().requires_grad_(False).to(device)
    tiny = make().to(device)
    optimizer = torch.optim.AdamW(tiny.parameters(), lr=PEAK_RATE, betas=(0.9, 0.99), weight_decay=1e-4)
    began, step = time.monotonic(), 0
    while (share := (time.monotonic() - began) / (60 * minutes)) < 1:
        optimizer.param_groups[0]["lr"] = parallel.cosine(share, PEAK_RATE)
        chosen = torch.randint(count, (size,), device=device)
        pixels = data[chosen].float() / 127.5 - 1
        latents = latents_of(vae, pixels)
        blended = torch.rand(size, 1, 1, 1, device=device) < BLENDED
        weights = torch.rand(size, 1, 1, 1, device=device)
        latents = torch.where(blended, weights * latents + (1 - weights) * latents.roll(1, 0), latents)
        target = decoded_by(vae, latents)
        made = tiny.decode(latents).sample
        loss = 4 * mse_loss(made, target) + 0.5 * l1_loss(made, target)
        loss = loss + mse_loss(tiny.encode(target).latents, latents)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(tiny.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % 500 == 0:
            print(f"step {step} share {share:.2f} loss {loss.item():.4f}", flush=True)
    held_out = data[count:].float() / 127.5 - 1
    tiny = tiny.half().float()
    print(f"{step} steps, psnr {decibels(tiny, vae, held_out):.2f}", flush=True)
    tiny.half().cpu().save_pretrained(folder)


def main() -> None:
    """Train on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ASSETS / "decoder")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--pictures", type=int, default=4096)
    parser.add_argument("--batch", type=int, default=8)
    arguments = parser.parse_args(sys.argv[1:])
    train(arguments.out, arguments.minutes, arguments.device, arguments.pictures, arguments.batch)


if __name__ == "__main__":
    main()
