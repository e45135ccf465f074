"""Pictures with forecast predictions beside those of fewer steps: `python -m benchmarks.step_reuse`.

The embedded model, 128x128, guidance 2, a sample of prompts. A distance is the mean difference of all
channels of all pixels to the picture of all steps, of 255. Each way of forecasting has a row per scheduler,
beside as many plain steps as take at least as many UNet calls.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sdgrpc.diffusion.checkpoints.loading import load
from sdgrpc.diffusion.model import Model
from sdgrpc.diffusion.pictures.autoencoder import decode
from sdgrpc.diffusion.prompts.conditioning import encode
from sdgrpc.diffusion.sampling.denoise import Asking, ModelInput, StepResult
from sdgrpc.diffusion.sampling.forecasting import weights
from sdgrpc.diffusion.sampling.predict import predict
from sdgrpc.diffusion.sampling.schedulers import scheduler_class
from sdgrpc.diffusion.sampling.start import prepare
from sdgrpc.domain import Scheduler, StepReuse
from sdgrpc.embedded import EMBEDDED
from tests.support.tasks import task

PROMPTS = (
    "a red star on a blue background",
    "a green heart on a pink background",
    "a small yellow circle on a black background",
    "a large purple cross on a white background",
    "an orange triangle on a gray background",
    "a white square on a green background",
)
SIDE = 128
SCALE = 2.0
TIMESTEPS = 999.0

Shares = Callable[[Sequence[float], float], Sequence[float]]
"""From the exact timesteps so far and a wanted one: what each of their predictions adds to the forecast."""


def repeated(known: Sequence[float], _wanted: float) -> list[float]:
    """Repeat the last."""
    return [0.0] * (len(known) - 1) + [1.0]


def polynomial(order: int) -> Shares:
    """Lagrange's through the last points: what `step_reuse` does."""

    def shares(known: Sequence[float], wanted: float) -> list[float]:
        last = {at: place for place, at in enumerate(known)}  # the later of two at one timestep
        chosen = sorted(last, key=last.__getitem__)[-order - 1 :]
        found = dict(zip((last[at] for at in chosen), weights(chosen, wanted), strict=True))
        return [found.get(place, 0.0) for place in range(len(known))]

    return shares


def chebyshev(known: Sequence[float], wanted: float, degree: int = 4, ridge: float = 0.1) -> list[float]:
    """A ridge regression on Chebyshev polynomials over all points so far: Spectrum (arXiv 2603.01623)."""
    degree = min(degree, len(known) - 1)
    basis = np.polynomial.chebyshev.chebvander(2 * np.array([*known, wanted]) / TIMESTEPS - 1, degree)
    gram = basis[:-1].T @ basis[:-1] + ridge * np.eye(degree + 1)
    found: list[float] = (basis[-1] @ np.linalg.solve(gram, basis[:-1].T)).tolist()
    return found


WAYS: dict[str, Shares] = {
    "repeat": repeated,
    "line": polynomial(1),
    "parabola": polynomial(2),
    "chebyshev": chebyshev,
}


class Sample:
    """Draws all prompts side by side, a UNet call for all of them at each evaluation."""

    def __init__(self, model: Model, prompts: Sequence[str]) -> None:
        self._model, self._prompts = model, prompts
        self._told = [encode(model, prompt, "") for prompt in prompts]

    def draw(
        self, scheduler: Scheduler, steps: int, every: int = 1, shares: Shares = repeated
    ) -> tuple[np.ndarray, int]:
        """Return the pictures' values and the UNet calls that each took."""
        done = [0]
        jobs = [self._job(scheduler, steps, index, done) for index in range(len(self._prompts))]
        wanted, ends = [next(job) for job in jobs], list[torch.Tensor]()
        known: list[float] = []
        exact: list[torch.Tensor] = []
        reuse = StepReuse(every)
        while not ends:
            timestep = float(wanted[0].timestep)
            if every == 1 or reuse.asks(done[0], steps):
                predictions = self.predict(wanted)
                known.append(timestep)
                exact.append(predictions)
            else:
                terms = zip(shares(known, timestep), exact, strict=True)
                predictions = torch.stack([share * each for share, each in terms if share]).sum(0)
            wanted = self.sent(jobs, predictions, ends)
        return self.pictures(ends), len(known)

    def predict(self, wanted: Sequence[ModelInput]) -> torch.Tensor:
        """Ask the UNet for all jobs in one call."""
        return torch.stack(predict(self._model, wanted, 64))

    def sent(
        self, jobs: Sequence[Asking], predictions: torch.Tensor, ends: list[torch.Tensor]
    ) -> list[ModelInput]:
        """Send the jobs their predictions, return what they want next, and put final latents into `ends`."""
        wanted = []
        for job, prediction in zip(jobs, predictions, strict=True):
            try:
                wanted.append(job.send(prediction))
            except StopIteration as stop:
                ends.append(stop.value)
        return wanted

    def pictures(self, ends: Sequence[torch.Tensor]) -> np.ndarray:
        """Decode latents into the values of pixels."""
        pictures = [decode(self._model, latents)[0] for latents in ends]
        return np.stack([np.frombuffer(each.data, np.uint8).astype(float) for each in pictures])

    def _job(self, scheduler: Scheduler, steps: int, index: int, done: list[int]) -> Asking:
        asked = task(
            prompt=self._prompts[index],
            scheduler=scheduler,
            steps=steps,
            seed=index,
            guidance_scale=SCALE,
            width=SIDE,
            height=SIDE,
        )

        def step(result: StepResult) -> None:
            done[0] = result.step if index == 0 else done[0]

        return prepare(self._model, asked, self._told[index], step)


def rows(
    sample: Sample, scheduler: Scheduler, steps: int, every: int, ways: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Compare the ways for one scheduler."""
    full, all_calls = sample.draw(scheduler, steps)
    plain: dict[int, tuple[float, int]] = {}
    for way in ways:
        pictures, calls = sample.draw(scheduler, steps, every, WAYS[way])
        order = getattr(scheduler_class(scheduler), "order", 1)
        fewer = math.ceil((calls + order - 1) / order)
        if fewer not in plain:
            rival, rival_calls = sample.draw(scheduler, fewer)
            plain[fewer] = float(np.abs(rival - full).mean()), rival_calls
        yield {
            "scheduler": scheduler.value,
            "steps": steps,
            "every": every,
            "way": way,
            "all_calls": all_calls,
            "calls": calls,
            "distance": float(np.abs(pictures - full).mean()),
            "plain_calls": plain[fewer][1],
            "plain_distance": plain[fewer][0],
        }


@torch.inference_mode()
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, nargs="+", default=[20], help="of the full runs")
    parser.add_argument("--every", type=int, nargs="+", default=[2])
    parser.add_argument("--prompts", type=int, default=len(PROMPTS), help="how many of the sample")
    parser.add_argument("--schedulers", default=",".join(each.value for each in Scheduler))
    parser.add_argument("--ways", default=",".join(WAYS), help=f"of {', '.join(WAYS)}")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    arguments = parser.parse_args()
    model = load("tiny", EMBEDDED, device=torch.device("cpu"), dtype=torch.float32)
    sample = Sample(model, PROMPTS[: arguments.prompts])
    heads = ("scheduler", "steps", "every", "way", "calls", "away", "plain calls", "away", "closer")
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    results = []
    for scheduler in map(Scheduler, arguments.schedulers.split(",")):
        for steps in arguments.steps:
            for every in arguments.every:
                for row in rows(sample, scheduler, steps, every, arguments.ways.split(",")):
                    results.append(row)
                    print(
                        f"| {row['scheduler']} | {steps} | {every} | {row['way']} | {row['calls']} of "
                        f"{row['all_calls']} | {row['distance']:.3f} | {row['plain_calls']} | "
                        f"{row['plain_distance']:.3f} | {row['plain_distance'] / row['distance']:.1f} |",
                        flush=True,
                    )
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
