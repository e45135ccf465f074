"""The rows that each step of a task asks the UNet for, known before any of them has run."""

from __future__ import annotations

from dataclasses import replace

from sdgrpc.diffusion.sampling.forecasting import Forecaster
from sdgrpc.domain import LoraRef, Margins, MaskOptions, Output, Sampling, Task
from sdgrpc.domain.phases import phases
from sdgrpc.domain.tasks import asks_negative
from sdgrpc.engine.prompts.texts import PromptTexts
from sdgrpc.prompting.composition import read_parts

Rows = tuple[tuple[int, ...], ...]
"""Of each step of each pass."""


def rows_of_steps(task: Task) -> list[int]:
    """Return the rows that each step asks the UNet for, 0 if it is forecast.

    An image takes one for each part of the prompt, and one for the negative prompt where that is asked about.
    """
    return [rows for each in rows_of_passes(task) for rows in each]


def rows_of_passes(task: Task) -> Rows:
    """Return the rows of each pass; it forecasts for itself. A set that comes late is taken to be in time."""
    told, found = _told(task), []
    weights = [part.weight for part in read_parts(task.prompt)]
    for one in task.passes:
        count, sampling = one.steps_of_pass, one.sampling
        forecaster = Forecaster(sampling.step_reuse, count)
        rows = []
        for step in range(count):
            scale = _scale_at(sampling, sampling.steps - count + step)
            asks = forecaster.asks(step, (scale, told[step]))
            rows.append(asks * sampling.image_count * (len(weights) + asks_negative(scale, weights)))
        told = told[count:]
        found.append(tuple(rows))
    return tuple(found)


def rows_alone(task: Task) -> Task:
    """Return the task without what its rows do not depend on: something small to know them by."""
    return replace(
        task,
        request_id="",
        model="",
        loras=tuple(LoraRef(start=ref.start, end=ref.end) for ref in task.loras),
        output=Output(),
        image=None,
        mask=None,
        mask_options=MaskOptions(),
        caller="",
        warnings=(),
        margins=Margins(),
    )


def _told(task: Task) -> list[object]:
    """What tells one step's predictions from those of the step before: its LoRAs and what is said in it."""
    if task.sampling.step_reuse is None:  # nothing is forecast from another
        return [None] * task.step_count
    texts, begins = PromptTexts.of(task), {phase.begins for phase in phases(task)}
    phase, found = 0, []
    for step in range(task.step_count):
        phase += step in begins
        found.append((phase, texts.at(step)))
    return [*found]


def _scale_at(sampling: Sampling, step: int) -> float:
    """The guidance scale of a step, from 0, of the schedule; 1 outside of the interval."""
    interval = sampling.guidance_interval
    guided = interval is None or interval.holds(step, sampling.steps)
    return sampling.guidance_scale if guided else 1.0
