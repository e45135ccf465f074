"""What the prompts of a task say in each of its steps."""

from __future__ import annotations

from dataclasses import dataclass

from sdgrpc.domain import Task
from sdgrpc.errors import FieldViolation, InvalidRequest
from sdgrpc.prompting.editing import read_schedule

MAX_TEXTS = 64
"""Each text is encoded, and kept until the job ends."""

Said = tuple[str, str | None]
"""A prompt and a negative one; None where guidance is off and none is asked about."""


@dataclass(frozen=True)
class PromptTexts:
    """The texts of the steps that run, in all passes: `said[0]` of the first; `last` where none does."""

    said: tuple[Said, ...]
    last: Said

    @classmethod
    def of(cls, task: Task) -> PromptTexts:
        """Read both prompts of a task. Steps that an image's strength leaves out are counted with the others.

        Raises:
            InvalidRequest: one says more than `MAX_TEXTS` different texts.

        """
        prompt = _texts(task, "prompt", task.prompt)
        negative: list[str | None] = [None] * len(prompt)
        if task.sampling.guidance_scale > 1:
            negative = [*_texts(task, "negative_prompt", task.negative_prompt)]
        said = tuple(zip(prompt, negative, strict=True))
        return cls(said[:-1], said[-1])

    @property
    def every(self) -> tuple[str, ...]:
        """All texts of both, each once."""
        return tuple(dict.fromkeys(text for said in (*self.said, self.last) for text in said if text))

    def at(self, step: int) -> Said:
        """Return what is said in a step, from 0."""
        return self.said[step] if step < len(self.said) else self.last

    def within(self, begin: int, end: int | None) -> tuple[Said, ...]:
        """Return what is said from one step until before another one, or the last, each once."""
        return tuple(dict.fromkeys(self.said[begin:end])) or (self.last,)


def _texts(task: Task, field: str, prompt: str) -> list[str]:
    """Return the text of each step that runs, and after these what is said at the end of the last pass."""
    schedule = read_schedule(prompt)
    if not schedule.changes:
        return [prompt] * (task.step_count + 1)
    found, before = [], 0
    for one in task.passes:
        steps = one.sampling.steps
        found += [schedule.at(step, steps, before) for step in range(steps - one.step_count + 1, steps + 1)]
        last, before = schedule.at(steps, steps, before), before + steps
    found.append(last)
    if len(set(found)) > MAX_TEXTS:
        message = f"says {len(set(found))} different texts; the most is {MAX_TEXTS}"
        raise InvalidRequest([FieldViolation(field, message)])
    return found
