"""Our latents against those of diffusers' pipelines: `python -m benchmarks.compare_diffusers`.

Tiny random models with the structure of Stable Diffusion 1, float32, the same weights, seeds and inputs. The
table shows the largest difference of any latent relative to the latents' standard deviation, per scheduler,
sigma spacing and kind of call, the worst of the step counts asked for.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch

from sdgrpc.diffusion.checkpoints.loading import load
from sdgrpc.diffusion.model import Model
from sdgrpc.domain import SUPPORTED_SPACINGS, Scheduler, SigmaSpacing, TaskKind
from tests.support.models import save_model
from tests.support.oracle import diffusers_latents, relative_difference
from tests.support.tasks import draw, task

TOLERANCE = 1e-4
COLUMNS = ("generate", "transform", "inpaint", "inpaint-9", "generate-v")


def columns(folder: Path) -> dict[str, tuple[Model, TaskKind, float]]:
    """The model, kind of call and strength behind each column of the table."""
    cpu = torch.device("cpu")
    ordinary = load("ordinary", save_model(folder / "ordinary"), device=cpu, dtype=None)
    nine = load("nine", save_model(folder / "nine", inpainting=True), device=cpu, dtype=None)
    v = load("v", save_model(folder / "v", prediction_type="v_prediction"), device=cpu, dtype=None)
    return {
        "generate": (ordinary, TaskKind.GENERATE, 1.0),
        "transform": (ordinary, TaskKind.TRANSFORM, 0.6),
        "inpaint": (ordinary, TaskKind.INPAINT, 1.0),
        "inpaint-9": (nine, TaskKind.INPAINT, 0.8),
        "generate-v": (v, TaskKind.GENERATE, 1.0),
    }


def rows(folder: Path, steps: list[int]) -> Iterator[tuple[Scheduler, SigmaSpacing, dict[str, float]]]:
    """Compare every scheduler with every spacing it has."""
    measured = columns(folder)
    for scheduler in Scheduler:
        for spacing in sorted(SUPPORTED_SPACINGS[scheduler], key=list(SigmaSpacing).index):
            worst = {}
            for name, (model, kind, strength) in measured.items():
                asked = [
                    task(kind, scheduler=scheduler, sigma_spacing=spacing, steps=n, strength=strength)
                    for n in steps
                ]
                worst[name] = max(
                    relative_difference(draw(model, a), diffusers_latents(model, a)) for a in asked
                )
            yield scheduler, spacing, worst


def main() -> int:
    """Print the table; 1 if any difference is above the tolerance."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, nargs="+", default=[5, 20], help="step counts to compare")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", FutureWarning)
    print(f"largest difference / standard deviation, steps {arguments.steps}, tolerance {TOLERANCE:g}")
    print(f"{'scheduler':<16} {'spacing':<12}" + "".join(f"{name:>12}" for name in COLUMNS))
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for scheduler, spacing, worst in rows(Path(folder), arguments.steps):
            figures = "".join(f"{worst[name]:>12.1e}" for name in COLUMNS)
            print(f"{scheduler.value:<16} {spacing.value:<12}{figures}", flush=True)
            results.append({"scheduler": scheduler.value, "spacing": spacing.value, **worst})
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    largest = max(float(row[name]) for row in results for name in COLUMNS)
    print(f"largest of all: {largest:.1e}")
    return int(not largest <= TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
