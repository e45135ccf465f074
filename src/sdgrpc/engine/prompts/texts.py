"""What the prompts of a task say in each of its steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sdgrpc.domain import Task
from sdgrpc.domain.tasks import asks_negative
from sdgrpc.errors import FieldViolation
from sdgrpc.prompting.composition import read_parts
from sdgrpc.prompting.editing import read_schedule

MAX_TEXTS = 64
"""Each text is encoded, and kept until the job ends."""

Said = tuple[tuple[str, ...], str | None]
"""The parts of a prompt and a negative one; None where guidance is off and none is asked about."""


@dataclass(frozen=True)
class PromptTexts:
    """The texts of the steps that run, in all passes: `said[0]` of the first; `last` where none does.

    `weights` are those of the prompt's parts, the same in all steps: it is parted before it is edited.
    """

    said: tuple[Said, ...]
    last: Said
    weights: tuple[float, ...] = (1.0,)

    @classmethod
    def of(cls, task: Task) -> PromptTexts:
        """Read both prompts of a task. Steps that an image's strength leaves out are counted, too."""
        parts = read_parts(task.prompt)
        weights = tuple(part.weight for part in parts)
        prompt = [*zip(*(_texts(task, part.text) for part in parts), strict=True)]
        negative: list[str | None] = [None] * len(prompt)
        if asks_negative(task.sampling.guidance_scale, weights):
            negative = [*_texts(task, task.negative_prompt)]
        said = tuple(zip(prompt, negative, strict=True))
        return cls(said[:-1], said[-1], weights)

    @property
    def every(self) -> tuple[str, ...]:
        """All texts of both, each once."""
        said = [text for parts, negative in (*self.said, self.last) for text in (*parts, negative)]
        return tuple(dict.fromkeys(text for text in said if text))

    def at(self, step: int) -> Said:
        """Return what is said in a step, from 0."""
        return self.said[step] if step < len(self.said) else self.last

    def within(self, begin: int, end: int | None) -> tuple[Said, ...]:
        """Return what is said from one step until before another one, or the last, each once."""
        return tuple(dict.fromkeys(self.said[begin:end])) or (self.last,)


def faults(task: Task) -> Iterator[FieldViolation]:
    """Say which of a task's prompts says more than `MAX_TEXTS` different texts."""
    texts = PromptTexts.of(task)
    prompts, negatives = zip(*texts.said, texts.last, strict=True)
    counts = len({text for parts in prompts for text in parts}), len({*negatives})
    for field, count in zip(("prompt", "negative_prompt"), counts, strict=True):
        if count > MAX_TEXTS:
            message = f"says {count} different texts in its steps; the most is {MAX_TEXTS}"
            yield FieldViolation(field, message)
    if counts[0] <= MAX_TEXTS < (count := len({*prompts})):
        message = f"joins its parts in {count} different ways in its steps; the most is {MAX_TEXTS}"
        yield FieldViolation("prompt", message)


def _texts(task: Task, prompt: str) -> list[str]:
    """Return the text of each step that runs, and after these what is said at the end of the last pass."""
    schedule = read_schedule(prompt)
    if not schedule.changes:
        return [prompt] * (task.step_count + 1)
    found, before = [], 0
    for one in task.passes:
        steps = one.sampling.steps
        found += [schedule.at(step, steps, before) for step in range(steps - one.step_count + 1, steps + 1)]
        last, before = schedule.at(steps, steps, before), before + steps
    return [*found, last]
