"""Which LoRAs of a task each of its steps has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from sdgrpc.domain.tasks import LoraRef, Task

NEAR = 1e-4
"""Of a step: shares come as floats of 24 bits, and 2/3 of 3 steps are 2 of them, not 2.0000001."""


def steps_before(share: float, steps: int) -> int:
    """Return how many of `steps` steps begin before a share of them: those i with i / steps < share."""
    return max(math.ceil(share * steps - NEAR), 0)


def holds(ref: LoraRef, step: int, steps: int) -> bool:
    """Tell whether step `step`, from 0, of `steps` has a LoRA: where start <= step / steps < end."""
    return steps_before(ref.start, steps) <= step < steps_before(ref.end, steps)


@dataclass(frozen=True, slots=True)
class Phase:
    """Steps in a row that have one LoRA set: `loras` are places in the task's.

    It begins with the step `begins`, counted from 0 among those that run, and where it is a late one's with
    any from `may_begin` on, as soon as its set is there.
    """

    begins: int
    may_begin: int
    loras: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class StepRange:
    """Steps in a row, from 1, as Progress counts them; both ends belong to it."""

    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.first}" if self.first == self.last else f"{self.first} to {self.last}"


def phases(task: Task) -> tuple[Phase, ...]:
    """Return the phases of a task in their order, one at least; each pass is a schedule of its own."""
    every = tuple(range(len(task.loras)))
    sets = [
        tuple(index for index in every if holds(task.loras[index], step, one.sampling.steps))
        for one in task.passes
        for step in range(one.sampling.steps - one.step_count, one.sampling.steps)
    ]
    runs = ((next(run), loras) for loras, run in groupby(range(len(sets)), sets.__getitem__))
    return tuple(Phase(first, first, loras) for first, loras in runs) or (Phase(0, 0, every),)


def late(task: Task, planned: Sequence[Phase]) -> tuple[Phase, ...]:
    """Return the phases of a task whose first set is not there yet: the first steps may run without it.

    At most those that begin before the share `late_start` of the schedule, and never all of the set's own.
    """
    whole, (first, *others) = task.passes[0], planned
    steps, end = whole.sampling.steps, others[0].begins if others else task.step_count
    most = min(steps_before(task.sampling.late_start, steps) - (steps - whole.step_count), end - 1)
    if not first.loras or most <= 0:
        return tuple(planned)
    return (Phase(0, 0, ()), Phase(most, 0, first.loras), *others)


def begun_with(planned: Sequence[Phase], step: int) -> tuple[Phase, ...]:
    """Return the phases of a task as they are once the second, a late one, has begun with a step, from 0."""
    first, second, *others = planned
    return (first, replace(second, begins=step, may_begin=step), *others)


def ranges(task: Task, planned: Sequence[Phase]) -> tuple[tuple[StepRange, ...], ...]:
    """Return the steps that each LoRA of a task is applied in, as few ranges as possible."""
    count = task.step_count
    firsts = [phase.begins for phase in planned]
    bounds = list(zip(firsts, [*firsts[1:], count], strict=True)) if count else []
    found: list[list[StepRange]] = [[] for _ in task.loras]
    for (first, end), phase in zip(bounds, planned, strict=False):
        for index in phase.loras:
            own = found[index]
            begun = own.pop().first if own and own[-1].last == first else first + 1
            own.append(StepRange(begun, end))
    return tuple(map(tuple, found))


def shown(steps: Sequence[StepRange]) -> str:
    """The steps as a text: `1 to 4, 9`."""
    return ", ".join(map(str, steps))
