"""Distil the base into a LoRA that draws in four steps without guidance (after Luo et al. 2023, LCM-LoRA).

A consistency function maps a noisy latent to the end of the guided ODE that goes through it. The paper learns
it from one solver step at a time; the base is small enough to solve the ODE to its end, so the LoRA learns
the end itself, at the four timesteps that `LCMScheduler` visits. The first round's noisy latents are made of
what perfect few-step sampling would have drawn before, the second's of what the LoRA in training draws, its
mistakes included.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, LCMScheduler

from . import lora, parallel
from .captions import caption, training_specs
from .export import load_unet, restore
from .factors import Factor
from .latents import encode_texts
from .models import ASSETS, GUIDANCE, Run, make_scheduler
from .train_lora import EVERYWHERE, patched

NAME, TITLE = "lcm", "LCM: 4 steps without guidance"
STEPS = 4
RANK, RATE = 6, 2e-3
PARTS = (*EVERYWHERE, "conv_in", "conv_shortcut", "time_emb_proj", "samplers")
CHAINS, CHUNK, BATCH = 288, 48, 16
ROUNDS = 2
HUBER = 0.05
BETWEEN = (3, 2, 1, 2)
"""Solver steps from each of the four timesteps to the next, from the noisiest on."""

Denoise = Callable[..., tuple[torch.Tensor, ...]]
Predict = Callable[[torch.Tensor, int, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Pairs:
    """Noisy latents and ends [N, 4, 16, 16], the index [N] of their timestep and of their caption [N]."""

    noisy: torch.Tensor
    ends: torch.Tensor
    which: torch.Tensor
    captions: torch.Tensor


def make_lcm_scheduler() -> LCMScheduler:
    """The base's schedule, its four timesteps set."""
    scheduler = LCMScheduler.from_config(make_scheduler().config)
    scheduler.set_timesteps(STEPS)
    return scheduler


def predictor(denoise: Denoise, scheduler: LCMScheduler) -> Predict:
    """The consistency function of a denoiser of velocities, with the boundary scalings of the scheduler."""

    def predict(noisy: torch.Tensor, t: int, features: torch.Tensor) -> torch.Tensor:
        alpha = scheduler.alphas_cumprod[t]
        c_skip, c_out = scheduler.get_scalings_for_boundary_condition_discrete(t)
        with parallel.autocast():
            velocity = denoise(noisy, torch.tensor(t), features, return_dict=False)[0].float()
        return c_skip * noisy + c_out * (alpha.sqrt() * noisy - (1 - alpha).sqrt() * velocity)

    return predict


def solver_timesteps(which: int, timesteps: list[int]) -> list[int]:
    """The solver's timesteps from the `which`-th of the four to the data."""
    edges = [*timesteps, 0]
    return [
        round(edges[i] + (edges[i + 1] - edges[i]) * part / BETWEEN[i])
        for i in range(which, STEPS)
        for part in range(BETWEEN[i])
    ]


@torch.no_grad()
def solve(
    unet: Denoise, noisy: torch.Tensor, steps: list[int], features: torch.Tensor, empty: torch.Tensor
) -> torch.Tensor:
    """The end of the guided ODE through noisy latents at steps[0], by DPM-Solver++ of second order."""
    solver = DPMSolverMultistepScheduler.from_config(make_scheduler().config)
    solver.set_timesteps(timesteps=steps)
    texts, latents = torch.cat([empty.expand_as(features), features]), noisy
    for t in solver.timesteps:
        with parallel.autocast():
            both = unet(torch.cat([latents, latents]), t, texts, return_dict=False)[0].float()
        without, with_text = both.chunk(2)
        latents = solver.step(without + GUIDANCE * (with_text - without), t, latents).prev_sample
    return latents


@torch.no_grad()
def gather(
    unet: Denoise, student: Predict | None, features: torch.Tensor, generator: torch.Generator
) -> Pairs:
    """Few-step sampling of captions [1 + N, 77, 128], the empty one first, with every step's true end.

    What is noised again for the next step is the true end, or the student's where there is one.
    """
    scheduler = make_lcm_scheduler()
    timesteps = [int(t) for t in scheduler.timesteps]
    found: list[tuple[torch.Tensor, ...]] = []
    for chosen in torch.arange(1, len(features)).split(CHUNK):
        texts = features[chosen]
        noisy = torch.randn((len(chosen), 4, 16, 16), generator=generator).to(features.device)
        for which, t in enumerate(timesteps):
            end = solve(unet, noisy, solver_timesteps(which, timesteps), texts, features[0])
            found.append((noisy, end, torch.full((len(chosen),), which), chosen))
            drawn = end if student is None else student(noisy, t, texts)
            if which + 1 < STEPS:
                noise = torch.randn(noisy.shape, generator=generator).to(features.device)
                noisy = scheduler.add_noise(drawn, noise, torch.tensor([timesteps[which + 1]]))
        print(f"gathered {int(chosen[-1])} of {len(features) - 1}", flush=True)
    return Pairs(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def distance(predicted: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """The pseudo-Huber distance of the consistency papers, a mean over all values."""
    return ((predicted - ends).square() + HUBER**2).sqrt().mean() - HUBER


def captions_of(count: int, rng: np.random.Generator) -> list[str]:
    """Captions of combinations that the base has seen; no pictures are needed."""
    specs = training_specs()
    return [caption(specs[int(i)], rng).text for i in rng.integers(0, len(specs), count)]


def fit(
    predict: Predict,
    optimizer: torch.optim.Optimizer,
    pairs: Pairs,
    features: torch.Tensor,
    span: tuple[float, float],
    minutes: float,
    batch: int,
    generator: torch.Generator,
) -> int:
    """Learn pairs for the minutes, from share span[0] to span[1] of the whole; returns the steps taken."""
    timesteps = [int(t) for t in make_lcm_scheduler().timesteps]
    rows = [torch.nonzero(pairs.which == which).flatten() for which in range(STEPS)]
    budget, means, step = parallel.Budget(minutes), [0.0] * STEPS, 0
    for share in budget.ticks():
        optimizer.param_groups[0]["lr"] = parallel.cosine(span[0] + (span[1] - span[0]) * share, RATE)
        which = step % STEPS
        row = rows[which][torch.randint(len(rows[which]), (batch,), generator=generator)]
        predicted = predict(pairs.noisy[row], timesteps[which], features[pairs.captions[row]])
        loss = distance(predicted, pairs.ends[row])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 1.0)
        optimizer.step()
        means[which] = loss.item() if step < STEPS else 0.95 * means[which] + 0.05 * loss.item()
        step, budget.shared = step + 1, budget.local()
        if step % 50 == 0:
            print(f"lcm step {step} share {share:.2f} loss", *(f"{m:.4f}" for m in means), flush=True)
    return step


def moved(factors: lora.Factors, device: str) -> lora.Factors:
    """The same factors, trainable, on a device."""
    return {
        name: Factor(*(t.detach().to(device).requires_grad_(True) for t in factor.parameters()))
        for name, factor in factors.items()
    }


def train(run: Run, minutes: float, chains: int = CHAINS, batch: int = BATCH, device: str = "cpu") -> None:
    """Distil for some minutes (gathering takes its own on top) and write the file of the assets.

    In an empty folder of a run the base is that of the assets.
    """
    torch.set_num_threads(1)
    if not run.path("unet.pt").exists():
        restore(run)
    unet = load_unet(run)
    generator, rng = torch.Generator().manual_seed(12), np.random.default_rng(12)
    factors = moved(lora.make(unet, lora.targets(unet, PARTS), RANK, generator), device)
    unet = unet.to(device, memory_format=torch.channels_last)
    predict = predictor(patched(unet, factors), make_lcm_scheduler())
    optimizer = torch.optim.AdamW(lora.parameters(factors), lr=RATE, betas=(0.9, 0.99), weight_decay=1e-3)
    features, steps, seen = encode_texts(run, [""]).to(device), 0, None
    for index in range(ROUNDS):
        fresh = encode_texts(run, captions_of(chains // ROUNDS, rng)).to(device)
        pairs = gather(unet, predict if index else None, torch.cat([features[:1], fresh]), generator)
        shifted = Pairs(pairs.noisy, pairs.ends, pairs.which, pairs.captions + len(features) - 1)
        seen = shifted if seen is None else joined(seen, shifted)
        features = torch.cat([features, fresh])
        span = (index / ROUNDS, (index + 1) / ROUNDS)
        steps += fit(predict, optimizer, seen, features, span, minutes / ROUNDS, batch, generator)
        lora.write(lora.kohya(factors), metadata(steps, chains), run.assets / "loras" / f"{NAME}.safetensors")


def joined(first: Pairs, second: Pairs) -> Pairs:
    """Both, one after the other."""
    names = ("noisy", "ends", "which", "captions")
    return Pairs(*(torch.cat([getattr(first, name), getattr(second, name)]) for name in names))


def metadata(steps: int, chains: int) -> dict[str, str]:
    """What trainers write; the title says the kind and the number of steps, so catalogues can tell."""
    return {
        "ss_output_name": NAME,
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(RANK),
        "ss_network_alpha": str(float(RANK)),
        "ss_steps": str(steps),
        "ss_num_train_images": str(chains),
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.title": TITLE,
        "modelspec.license": "Apache-2.0",
        "modelspec.resolution": "128x128",
        "modelspec.prediction_type": "v",
        "modelspec.usage_hint": json.dumps({"scheduler": "LCM", "steps": STEPS, "guidance_scale": 1.0}),
    }


def main() -> None:
    """Distil on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--assets", type=Path, default=ASSETS, help="its folder `loras` gets the file")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--chains", type=int, default=CHAINS)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    train(Run(given.out, given.assets), given.minutes, given.chains, given.batch, given.device)


if __name__ == "__main__":
    main()
