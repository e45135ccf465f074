"""Features of the deep blocks kept between steps beside forecasts: `python -m benchmarks.deep_features`.

DeepCache (https://arxiv.org/abs/2312.00858): every N-th call runs the whole UNet and keeps what enters the
last layers of its last block; the calls between run the first and last layers alone. Forecasting runs
nothing at all between. Pictures, distances and prompts are those of `benchmarks.step_reuse`; a cost is a
share of the full run's multiplications, counted, so that both are compared at what they take. What a shallow
call costs in Stable Diffusion 1.5's configuration is counted too.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.step_reuse import PROMPTS, SIDE, Sample, polynomial
from benchmarks.tables import write_json
from sdgrpc.diffusion.checkpoints.loading import load
from sdgrpc.diffusion.model import Model
from sdgrpc.domain import Scheduler
from sdgrpc.embedded import EMBEDDED


class DeepCached(nn.Module):
    """A UNet that runs as a whole where `whole` says so, else its `depth` first and last layers."""

    def __init__(self, unet: UNet2DConditionModel, depth: int) -> None:
        super().__init__()
        self.unet, self.depth, self.whole = unet, depth, True
        self.kept: torch.Tensor | None = None
        skipped = unet.config.block_out_channels[0] if depth > 1 else unet.conv_in.out_channels
        entry = unet.up_blocks[-1].resnets[-depth]

        def keep(_module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            if self.whole:  # the entry's input is [features, what skipped the deep blocks]
                self.kept = inputs[0][:, :-skipped]

        entry.register_forward_pre_hook(keep)

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor, **told: Any) -> tuple[torch.Tensor]:  # noqa: ANN401
        """See diffusers' UNet."""
        if self.whole:
            whole: tuple[torch.Tensor] = self.unet(sample, timestep, **told)
            return whole
        unet, tokens = self.unet, told["encoder_hidden_states"]
        assert self.kept is not None, "the first call is whole"  # noqa: S101
        times = unet.time_embedding(unet.get_time_embed(sample=sample, timestep=timestep))
        hidden = unet.conv_in(sample)
        skipped = [hidden]
        for layer in range(self.depth - 1):
            hidden = _layer(unet.down_blocks[0], layer, hidden, times, tokens)
            skipped.append(hidden)
        hidden = self.kept
        last = unet.up_blocks[-1]
        for layer in range(len(last.resnets) - self.depth, len(last.resnets)):
            hidden = _layer(last, layer, torch.cat([hidden, skipped.pop()], dim=1), times, tokens)
        return (unet.conv_out(unet.conv_act(unet.conv_norm_out(hidden))),)


def _layer(
    block: Any,  # noqa: ANN401 - a down or an up block
    number: int,
    hidden: torch.Tensor,
    times: torch.Tensor,
    tokens: torch.Tensor,
) -> torch.Tensor:
    """One layer of a block: its residual network, and its attention if it has one."""
    hidden = block.resnets[number](hidden, times)
    attentions = getattr(block, "attentions", None)
    if attentions is None:
        return hidden
    attended: torch.Tensor = attentions[number](hidden, encoder_hidden_states=tokens, return_dict=False)[0]
    return attended


def shallow_share(unet: UNet2DConditionModel, depth: int, latent: int) -> float:
    """What a shallow call multiplies, as a share of a whole one."""
    cached = DeepCached(unet, depth)
    device = next(unet.parameters()).device
    width = unet.config.cross_attention_dim
    told = {
        "encoder_hidden_states": torch.zeros(2, 77, width, device=device),
        "return_dict": False,
    }
    counts = []
    for whole in (True, False):
        cached.whole = whole
        with FlopCounterMode(display=False) as counter:
            cached(torch.zeros(2, 4, latent, latent, device=device), torch.ones(2, device=device), **told)
        counts.append(counter.get_total_flops())
    return counts[1] / counts[0]


class Deep(Sample):
    """Draws with a UNet whose calls are whole at every N-th step alone."""

    def __init__(self, model: Model, prompts: Sequence[str], depth: int) -> None:
        self.cached = DeepCached(model.unet, depth)
        super().__init__(replace(model, unet=self.cached), prompts)

    def deep(self, scheduler: Scheduler, steps: int, every: int) -> tuple[np.ndarray, int, int]:
        """Return the pictures' values, and the whole and the shallow calls that each took."""
        done, whole = [0], 0
        jobs = [self._job(scheduler, steps, index, done) for index in range(len(self._prompts))]
        wanted, ends, calls = [next(job) for job in jobs], list[torch.Tensor](), 0
        while not ends:
            self.cached.whole = calls == 0 or done[0] % every == 0
            whole, calls = whole + self.cached.whole, calls + 1
            predictions = self.predict(wanted)
            wanted = self.sent(jobs, predictions, ends)
        return self.pictures(ends), whole, calls - whole


def rows(
    model: Model, schedulers: Sequence[Scheduler], steps: int, prompts: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Compare the ways for each scheduler, the cheapest first."""
    plain = Sample(model, prompts)
    deep = {depth: Deep(model, prompts, depth) for depth in (1, 2)}
    shares = {depth: shallow_share(model.unet, depth, SIDE // model.info.vae_scale_factor) for depth in deep}
    for scheduler in schedulers:
        full, calls = plain.draw(scheduler, steps)

        def row(way: str, cost: float, pictures: np.ndarray, full: np.ndarray = full) -> dict[str, Any]:
            return {"way": way, "cost": cost, "distance": float(np.abs(pictures - full).mean())}

        found = []
        for every in (2, 3):
            pictures, asked = plain.draw(scheduler, steps, every, polynomial(1))
            found.append(row(f"forecast, every {every}", asked / calls, pictures))
        for depth, drawing in deep.items():
            for every in (2, 3, 5):
                pictures, whole, shallow = drawing.deep(scheduler, steps, every)
                cost = (whole + shallow * shares[depth]) / calls
                found.append(row(f"features, depth {depth}, every {every}", cost, pictures))
            drawing.cached.whole = True
        for share in (0.4, 0.5, 0.6, 0.7, 0.8):
            pictures, asked = plain.draw(scheduler, round(share * steps))
            found.append(row(f"{round(share * steps)} plain steps", asked / calls, pictures))
        for one in sorted(found, key=lambda one: one["cost"]):
            yield {"scheduler": scheduler.value, "steps": steps, **one}


@torch.inference_mode()
def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20, help="of the full runs")
    parser.add_argument("--prompts", type=int, default=4, help="how many of the sample")
    parser.add_argument("--schedulers", default="euler,ddim,dpmpp_2m,unipc,heun,euler_ancestral")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args(arguments)
    model = load("tiny", EMBEDDED, device=torch.device("cpu"), dtype=torch.float32)
    with torch.device("meta"):
        sd15 = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    real = {depth: shallow_share(sd15, depth, 64) for depth in (1, 2, 3)}
    told = ", ".join(f"{share:.1%} at depth {depth}" for depth, share in real.items())
    print(f"A shallow call in Stable Diffusion 1.5, 512x512: {told} of a whole one.\n")
    print("| scheduler | way | cost | away |\n|---|---|---|---|")
    results = []
    schedulers = [Scheduler(name) for name in options.schedulers.split(",")]
    for row in rows(model, schedulers, options.steps, PROMPTS[: options.prompts]):
        results.append(row)
        print(
            f"| {row['scheduler']} | {row['way']} | {row['cost']:.2f} | {row['distance']:.3f} |", flush=True
        )
        if options.json:
            write_json(options.json, {"shallow_share_of_sd15": real, "rows": results})


if __name__ == "__main__":
    main()
