"""The benchmark of forecast predictions: it measures what the service does."""

from __future__ import annotations

import pytest
import torch

from benchmarks.step_reuse import WAYS, Sample, rows
from sdgrpc.diffusion.checkpoints.loading import load
from sdgrpc.diffusion.model import Model
from sdgrpc.diffusion.pictures.autoencoder import decode
from sdgrpc.domain import Scheduler, StepReuse
from sdgrpc.embedded import EMBEDDED
from tests.support.tasks import draw, task

PROMPT = "a red star on a blue background"


@pytest.fixture(scope="module")
def embedded() -> Model:
    return load("tiny", EMBEDDED, device=torch.device("cpu"), dtype=torch.float32)


@pytest.mark.parametrize(("way", "order"), [("line", 1), ("parabola", 2)])
@torch.inference_mode()
def test_lines_and_parabolas_are_those_of_step_reuse(embedded: Model, way: str, order: int) -> None:
    """Picture for picture, within rounding."""
    sample = Sample(embedded, [PROMPT])
    pictures, calls = sample.draw(Scheduler.HEUN, 8, 2, WAYS[way])
    asked = task(
        prompt=PROMPT,
        negative_prompt="",
        scheduler=Scheduler.HEUN,
        steps=8,
        seed=0,
        guidance_scale=2.0,
        step_reuse=StepReuse(2, order),
        width=128,
        height=128,
    )
    expected = torch.frombuffer(bytearray(decode(embedded, draw(embedded, asked))[0].data), dtype=torch.uint8)
    assert calls == 11
    assert abs(torch.from_numpy(pictures[0]) - expected).max() <= 1


@torch.inference_mode()
def test_a_row(embedded: Model) -> None:
    """A line is nearer to the full run than repeating; the rival has at least as many calls."""
    line, repeat = rows(Sample(embedded, [PROMPT]), Scheduler.DPMPP_2M, 12, 2, ["line", "repeat"])
    assert line["calls"] == repeat["calls"] == line["plain_calls"] == 8
    assert line["distance"] < repeat["distance"]
