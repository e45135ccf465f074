"""Train the denoiser on cached latents and text features, nothing else inside the loop."""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch.nn.functional import mse_loss

from . import parallel
from .captions import held_out_prompts
from .latents import Cache, encode_texts, load
from .models import Run, make_scheduler, make_unet
from .sampling import report

PEAK_RATE = 8e-4
BATCH = 16
DROP = 0.1
AVERAGE = 0.9985
SAVE_SECONDS = 150
LOOK_SECONDS = 480


def alphas_cumprod() -> torch.Tensor:
    """[1000] float32: the share of signal variance left at each step of the schedule."""
    return make_scheduler().alphas_cumprod


def stratified_steps(size: int, generator: torch.Generator) -> torch.Tensor:
    """[size] time steps, one from each of `size` equal parts of the schedule."""
    return ((torch.arange(size) + torch.rand(size, generator=generator)) / size * 1000).long()


def velocity_loss(
    unet: UNet2DConditionModel,
    latents: torch.Tensor,
    features: torch.Tensor,
    alphas: torch.Tensor,
    generator: torch.Generator,
) -> torch.Tensor:
    """Weighted error of the predicted velocity (Salimans and Ho 2022) for scaled latents [B, 4, 16, 16].

    The weight makes it an error of the clean latent that counts 2 to 6 times, so that the noisy steps, which
    decide the shape, are not drowned by the clean ones.
    """
    steps = stratified_steps(len(latents), generator)
    alpha = alphas[steps].view(-1, 1, 1, 1)
    noise = torch.randn(latents.shape, generator=generator)
    noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
    velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
    with parallel.autocast():
        predicted = unet(
            noisy.contiguous(memory_format=torch.channels_last), steps, features, return_dict=False
        )[0]
    ratio = (alpha / (1 - alpha)).flatten() + 1
    weight = ratio.clamp(2, 6) / ratio
    return (weight * mse_loss(predicted.float(), velocity, reduction="none").mean((1, 2, 3))).mean()


def initial(
    path: Path,
) -> tuple[UNet2DConditionModel, UNet2DConditionModel, torch.optim.AdamW, dict[str, Any]]:
    """The denoiser, its average, the optimizer and the counters, from the checkpoint if there is one."""
    torch.manual_seed(6)
    unet, average = make_unet().to(memory_format=torch.channels_last), make_unet().requires_grad_(False)
    average.load_state_dict(unet.state_dict())
    optimizer = torch.optim.AdamW(unet.parameters(), lr=PEAK_RATE, betas=(0.9, 0.99), weight_decay=1e-2)
    counters: dict[str, Any] = {"step": 0, "seconds": 0.0}
    if path.exists():
        state = torch.load(path, weights_only=True)
        unet.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        counters = {"step": state["step"], "seconds": state["seconds"]}
    return unet, average, optimizer, counters


@torch.no_grad()
def follow(average: UNet2DConditionModel, unet: UNet2DConditionModel, step: int) -> None:
    """Move the running average towards the weights, faster in the first steps."""
    rate = 1 - min(AVERAGE, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average.parameters()), list(unet.parameters()), rate)


def train(run: Run, minutes: float) -> None:
    """Train for the minutes; `unet.pt` and samples of held-out prompts (`samples_*.png`) now and then."""
    rank, _ = parallel.join()
    path = run.path("unet.pt")
    unet, average, optimizer, counters = initial(path)
    step, scale = counters["step"], json.loads(run.path("latents.json").read_text())["scaling_factor"]
    cache: Cache = load(run.path(f"cache_{rank}.pt"))
    prompts = held_out_prompts(32)
    features = encode_texts(run, ["", *(p.text for p in prompts)]) if rank == 0 else None
    generator = torch.Generator().manual_seed(1000 * rank + step)
    alphas, budget = alphas_cumprod(), parallel.Budget(minutes, counters["seconds"])
    saved = looked = counters["seconds"]
    mean = 0.0
    for share in budget.ticks():
        optimizer.param_groups[0]["lr"] = parallel.cosine(share, PEAK_RATE, floor=0.01)
        latents, texts = cache.batch(BATCH, DROP, generator)
        loss = velocity_loss(unet, latents * scale, texts, alphas, generator)
        optimizer.zero_grad()
        loss.backward()
        budget.shared = parallel.average_gradients(unet.parameters(), budget.local())
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        step += 1
        follow(average, unet, step)
        mean = loss.item() if mean == 0 else 0.99 * mean + 0.01 * loss.item()
        if rank == 0 and step % 50 == 0:
            print(
                f"unet step {step} share {share:.3f} loss {mean:.4f} seconds {budget.shared:.0f}", flush=True
            )
        last = budget.shared >= budget.total
        if rank == 0 and (budget.shared - saved > SAVE_SECONDS or last):
            saved = budget.shared
            parts = {
                "model": unet.state_dict(),
                "average": average.state_dict(),
                "optimizer": optimizer.state_dict(),
            }
            parallel.save(path, {**parts, "step": step, "seconds": saved})
        if rank == 0 and (budget.shared - looked > LOOK_SECONDS or last):
            looked = budget.shared
            print(
                "look",
                step,
                report(run, average, features, prompts, run.path(f"samples_{step:06d}.png")),  # type: ignore[arg-type]
                flush=True,
            )


def main() -> None:
    """The entry of one rank."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60.0)
    arguments = parser.parse_args()
    train(Run(arguments.out), arguments.minutes)


if __name__ == "__main__":
    main()
