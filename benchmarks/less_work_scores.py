"""What pictures drawn by less work show, as `evaluate` judges: `python -m benchmarks.less_work_scores`.

Held-out prompts of the embedded model's training, each with its own seed, drawn by all calls, with
forecasts, with a guidance interval, with both, and by plain fewer steps. The judge is that of
`tools.tiny_model`: a small network for the shape, trained here first, and the pixels for the colours.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.tables import ROOT, write_json
from sdgrpc.diffusion.checkpoints.loading import load
from sdgrpc.diffusion.model import Model
from sdgrpc.diffusion.pictures.autoencoder import decode
from sdgrpc.diffusion.prompts.conditioning import encode
from sdgrpc.diffusion.sampling.denoise import Asking, ModelInput
from sdgrpc.diffusion.sampling.predict import predict
from sdgrpc.diffusion.sampling.start import prepare
from sdgrpc.domain import GuidanceInterval, Scheduler, StepReuse
from sdgrpc.embedded import EMBEDDED
from tests.support.tasks import task
from tools.tiny_model import classifier
from tools.tiny_model.captions import held_out_prompts
from tools.tiny_model.models import ASSETS, GUIDANCE, STEPS, Run
from tools.tiny_model.sampling import score

SIDE = 128
CHUNK = 16
WAYS: dict[str, dict[str, Any]] = {
    "all calls": {},
    "every 2": {"step_reuse": StepReuse(2)},
    "every 3": {"step_reuse": StepReuse(3)},
    "guided 0.1:0.8": {"guidance_interval": GuidanceInterval(0.1, 0.8)},
    "both, every 2": {"step_reuse": StepReuse(2), "guidance_interval": GuidanceInterval(0.1, 0.8)},
    "12 plain steps": {"steps": 12},
}


def drawn(model: Model, scheduler: Scheduler, prompts: Sequence[str], changes: dict[str, Any]) -> np.ndarray:
    """One picture per prompt, `[n, 128, 128, 3]` uint8; prompt i with seed i."""
    found = []
    for start in range(0, len(prompts), CHUNK):
        jobs = [
            _job(model, scheduler, prompt, start + number, changes)
            for number, prompt in enumerate(prompts[start : start + CHUNK])
        ]
        for latents in _side_by_side(model, jobs):
            picture = decode(model, latents)[0]
            found.append(np.frombuffer(picture.data, np.uint8).reshape(SIDE, SIDE, 3))
    return np.stack(found)


def _job(model: Model, scheduler: Scheduler, prompt: str, seed: int, changes: dict[str, Any]) -> Asking:
    values = {"steps": STEPS, "guidance_scale": GUIDANCE} | changes
    asked = task(prompt=prompt, scheduler=scheduler, seed=seed, width=SIDE, height=SIDE, **values)
    return prepare(model, asked, encode(model, prompt, ""), lambda _: None)


def _side_by_side(model: Model, jobs: Sequence[Asking]) -> list[torch.Tensor]:
    """Run jobs that want the same at each step, a call for all of them."""
    wanted: list[ModelInput] = [next(job) for job in jobs]
    ends: list[torch.Tensor] = []
    while not ends:
        predictions, asked = predict(model, wanted, 2 * CHUNK), wanted
        wanted = []
        for job, prediction in zip(jobs, predictions, strict=True):
            try:
                wanted.append(job.send(prediction))
            except StopIteration as stop:
                ends.append(stop.value)
        assert len(ends) in (0, len(asked))  # noqa: S101 - all take the same steps
    return ends


def rows(model: Model, run: Run, schedulers: Sequence[Scheduler], prompts: int) -> Iterator[dict[str, Any]]:
    """Score every way with every scheduler."""
    captions = held_out_prompts(prompts)
    for scheduler in schedulers:
        for way, changes in WAYS.items():
            pictures = drawn(model, scheduler, [one.text for one in captions], changes)
            yield {"scheduler": scheduler.value, "way": way} | score(run, pictures, captions)


@torch.inference_mode()
def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--schedulers", default="euler,dpmpp_2m,heun")
    parser.add_argument("--minutes", type=float, default=1.5, help="to train the judge, if there is none yet")
    parser.add_argument("--judge", type=Path, default=ROOT / "build" / "judge", help="its folder")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args(arguments)
    options.judge.mkdir(parents=True, exist_ok=True)
    run = Run(options.judge, ASSETS)
    if not run.path("classifier.pt").exists():
        threads = torch.get_num_threads()
        with torch.inference_mode(False):
            classifier.train(run, options.minutes)
        torch.set_num_threads(threads)
    accuracy = classifier.load(run)[1]
    print(f"The judge reads {accuracy:.1%} of fresh drawings' shapes.\n")
    print("| scheduler | way | shape | fill | background |\n|---|---|---|---|---|")
    model = load("tiny", EMBEDDED, device=torch.device("cpu"), dtype=torch.float32)
    results = []
    for row in rows(model, run, [Scheduler(name) for name in options.schedulers.split(",")], options.prompts):
        results.append(row)
        scores = " | ".join(f"{row[name]:.1%}" for name in ("shape", "fill", "background"))
        print(f"| {row['scheduler']} | {row['way']} | {scores} |", flush=True)
        if options.json:
            write_json(options.json, {"judge": accuracy, "prompts": options.prompts, "rows": results})


if __name__ == "__main__":
    main()
