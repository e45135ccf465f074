"""Prompts that change as the steps go, against a plain loop that encodes what each step says."""

from __future__ import annotations

import pytest

from sdgrpc.domain import Scheduler, StepReuse
from tests.engine.sets.test_runner_by_hand import ONE, TOLERANCE, TWO, Bench
from tests.support.oracle import relative_difference
from tests.support.tasks import task

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

RED, BLUE = "a red star", "a blue circle"
LONG = "a blue circle on green, " * 20


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("edited"))


@pytest.mark.parametrize("scheduler", [Scheduler.EULER, Scheduler.HEUN, Scheduler.DPMPP_2M])
def test_editing_and_alternation(bench: Bench, scheduler: Scheduler) -> None:
    """In both prompts; what is said has other lengths, and a step of second order says one thing."""
    prompt, negative = f"[{RED}:{LONG}:0.5]", "[blurred|noise|]"
    asked = task(scheduler=scheduler, steps=6, prompt=prompt, negative_prompt=negative)
    negatives = ["blurred", "noise", ""] * 2
    said = [*zip([RED] * 3 + [LONG] * 3, negatives, strict=True)]
    drawn = bench.draw(asked).latents
    assert relative_difference(drawn, bench.by_hand(asked, [()] * 6, said)) <= TOLERANCE
    assert (
        relative_difference(drawn, bench.by_hand(asked, [()] * 6, [(RED, "blurred")] * 6)) > 100 * TOLERANCE
    )


def test_editing_beside_loras_by_step(bench: Bench) -> None:
    """Each set encodes what its own steps say with its own text encoders."""
    asked = task(steps=10, loras=(ONE, TWO), prompt=f"[{RED}:{BLUE}:5]", negative_prompt="")
    parts = [(ONE,)] * 3 + [(ONE, TWO)] * 3 + [(TWO,)] * 4
    said = [(RED, "")] * 5 + [(BLUE, "")] * 5
    assert relative_difference(bench.draw(asked).latents, bench.by_hand(asked, parts, said)) <= TOLERANCE


def test_forecasts_never_reach_over_a_change(bench: Bench) -> None:
    """A prediction about one text says nothing of another: where each step changes, each is asked."""
    reuse = StepReuse(every=2)
    plain = bench.draw(task(steps=8, prompt=RED, step_reuse=reuse)).calls
    edited = bench.draw(task(steps=8, prompt=f"[{RED}:{BLUE}:4]", step_reuse=reuse)).calls
    alternating = bench.draw(task(steps=8, prompt=f"[{RED}|{BLUE}]", step_reuse=reuse)).calls
    assert plain < edited < alternating == 8


def test_nothing_can_be_said_first_or_last(bench: Bench) -> None:
    """The empty prompt is a text like any other."""
    asked = task(steps=4, prompt=f"[{RED}::1]", negative_prompt="")
    said = [(RED, ""), *[("", "")] * 3]
    assert relative_difference(bench.draw(asked).latents, bench.by_hand(asked, [()] * 4, said)) <= TOLERANCE
