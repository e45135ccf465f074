"""Tasks for the tiny models, their inputs, and a loop that runs one without an engine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from sdgrpc.diffusion.model import Model
from sdgrpc.diffusion.prompts.conditioning import encode
from sdgrpc.diffusion.sampling.denoise import StepResult
from sdgrpc.diffusion.sampling.predict import predict
from sdgrpc.diffusion.sampling.start import prepare
from sdgrpc.domain import Output, Picture, Sampling, Scheduler, SigmaSpacing, Task, TaskKind
from tests.support.models import SIDE

SAMPLING = Sampling(
    steps=5,
    guidance_scale=3.0,
    scheduler=Scheduler.DDIM,
    sigma_spacing=SigmaSpacing.DEFAULT,
    seed=7,
)


def task(kind: TaskKind = TaskKind.GENERATE, **changes: Any) -> Task:
    """A small task; `changes` go to its Sampling where that has such a field, else to the Task."""
    sampling = {key: changes.pop(key) for key in list(changes) if hasattr(SAMPLING, key)}
    built = Task(
        kind=kind,
        request_id="test",
        model="tiny",
        prompt="a red cat",
        negative_prompt="blue",
        loras=(),
        sampling=replace(SAMPLING, **sampling),
        output=Output(),
        width=SIDE,
        height=SIDE,
        image=None if kind is TaskKind.GENERATE else gradient(),
        mask=box_mask() if kind is TaskKind.INPAINT else None,
        strength={TaskKind.TRANSFORM: 0.6}.get(kind, 1.0),
    )
    return replace(built, **changes)


def gradient(width: int = SIDE, height: int = SIDE) -> Picture:
    """An RGB picture in which no two neighbours are equal."""
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([x * 255 // width, y * 255 // height, (x * 7 + y * 13) % 256], axis=-1).astype(np.uint8)
    return Picture(width, height, 3, pixels.tobytes())


def box_mask(
    width: int = SIDE, height: int = SIDE, box: tuple[int, int, int, int] | None = None, level: int = 255
) -> Picture:
    """A mask that is `level` in the box (left, top, right, bottom) and black around it."""
    left, top, right, bottom = box or (width // 4, height // 4, width * 3 // 4, height * 3 // 4)
    pixels = np.zeros((height, width), np.uint8)
    pixels[top:bottom, left:right] = level
    return Picture(width, height, 1, pixels.tobytes())


def pixels_of(picture: Picture) -> np.ndarray:
    """The picture as `[height, width, channels]`."""
    return np.frombuffer(picture.data, np.uint8).reshape(picture.height, picture.width, picture.channels)


def draw(model: Model, asked: Task, steps: list[StepResult] | None = None) -> torch.Tensor:
    """Run a task alone to its final latents; its step results are appended to `steps`."""
    sampling = asked.sampling
    negative = asked.negative_prompt if sampling.guidance_scale > 1 else None
    conditioning = encode(model, asked.prompt, negative, sampling.clip_skip)
    results = steps if steps is not None else []
    job = prepare(model, asked, conditioning, results.append)
    prediction = None
    while True:
        try:
            wanted = job.send(prediction)
        except StopIteration as stop:
            return stop.value
        prediction = predict(model, [wanted], max_rows=8)[0]
