"""What each step asks of the UNet, told before it runs; `test_planning` holds it to what jobs did."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sdgrpc.domain import GuidanceInterval, LoraRef, Output, SecondPass, StepReuse, TaskKind
from sdgrpc.engine.timing.rows import rows_alone, rows_of_passes, rows_of_steps
from tests.support.tasks import task

REUSE = StepReuse(3)
LORA = LoraRef(0.5, 0.5, name="one", end=0.5)


def test_two_rows_an_image_with_guidance() -> None:
    """One outside of its interval, none in a step that is forecast."""
    assert rows_of_steps(task(steps=2, image_count=3)) == [6, 6]
    assert rows_of_steps(task(steps=2, image_count=3, guidance_scale=1.0)) == [3, 3]
    interval = GuidanceInterval(0.25, 0.75)
    assert rows_of_steps(task(steps=4, guidance_interval=interval)) == [1, 2, 2, 1]
    assert rows_of_steps(task(steps=7, step_reuse=REUSE)) == [2, 2, 0, 2, 0, 0, 2]


@pytest.mark.parametrize(
    "changes",
    [{"prompt": "[a:b:4]"}, {"negative_prompt": "[x:y:4]"}, {"loras": (replace(LORA, end=0.4),)}],
)
def test_two_steps_after_a_change_ask(changes: dict) -> None:
    """Of what is said, and of LoRAs: here from the fifth step of ten on."""
    plain, changing = (task(steps=10, step_reuse=REUSE, **each) for each in ({}, changes))
    assert rows_of_steps(plain) == [2, 2, 0, 2, 0, 0, 2, 0, 0, 2]
    assert rows_of_steps(changing) == [2, 2, 0, 2, 2, 2, 2, 0, 0, 2]


def test_each_pass_forecasts_for_itself() -> None:
    """Its first two steps ask, and its last; what changes in one changes nothing in the other."""
    second = SecondPass(width=96, height=96, strength=0.7, steps=10)
    asked = task(steps=6, step_reuse=REUSE, second_pass=second, prompt="[a:b:1.6]")
    first, then = rows_of_passes(asked)
    assert first == (2, 2, 0, 2, 0, 2)
    assert then == (2, 2, 0, 2, 2, 0, 2), "the schedule's seventh step, the fourth that runs, says b"
    assert rows_of_steps(asked) == [*first, *then]


def test_a_task_without_steps_asks_nothing() -> None:
    """Strength 0 leaves none."""
    asked = task(TaskKind.TRANSFORM, strength=0.0, step_reuse=REUSE, prompt="[a:b:0.5]")
    assert rows_of_passes(asked) == ((),)


def test_what_rows_are_known_by() -> None:
    """All that they depend on, and nothing large."""
    asked = task(TaskKind.INPAINT, loras=(LORA,), step_reuse=REUSE)
    other = replace(
        asked,
        request_id="another",
        output=Output("image/jpeg"),
        image=None,
        mask=None,
        loras=(replace(LORA, strength=1.0, name="", content=b"a file"),),
        caller="somebody",
        warnings=("small",),
    )
    assert rows_alone(asked) == rows_alone(other)
    assert len({rows_alone(asked), rows_alone(other)}) == 1
    assert rows_of_passes(rows_alone(asked)) == rows_of_passes(asked)
    for changes in (
        {"prompt": "b"},
        {"loras": ()},
        {"strength": 0.5},
        {"loras": (replace(LORA, start=0.1),)},
    ):
        assert rows_alone(replace(asked, **changes)) != rows_alone(asked)
