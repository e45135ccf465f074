"""Which steps have which LoRAs, against the definition in whole numbers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from sdgrpc.domain import LoraRef, Phase, SecondPass, StepRange, TaskKind
from sdgrpc.domain.phases import begun_with, late, phases, ranges, shown, steps_before
from tests.support.tasks import task


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 20, 49, 50, 150])
def test_a_share_of_a_step_is_that_step_however_it_was_rounded(steps: int) -> None:
    """A share k / n, as a float of 24 or 53 bits or as a decimal, is k steps; a little more is one more."""
    for k in range(steps + 1):
        for share in (k / steps, float(np.float32(k / steps)), float(f"{k / steps:.7g}")):
            assert steps_before(share, steps) == k
        assert steps_before(k / steps + 0.001, steps) == min(k + 1, steps + 1)


def test_the_definition() -> None:
    """Step i of n begins before a share where i / n is less, for every decimal of two digits."""
    for steps in range(1, 60):
        for hundredths in range(101):
            share = Fraction(hundredths, 100)
            expected = sum(Fraction(i, steps) < share for i in range(steps))
            assert steps_before(hundredths / 100, steps) == expected


A, B, LAST = LoraRef(name="a", end=0.5), LoraRef(name="b", start=0.3), LoraRef(name="c", start=0.9)


@pytest.mark.parametrize(
    ("loras", "steps", "expected"),
    [
        ((), 4, [(0, ())]),
        ((LoraRef(name="x"),), 4, [(0, (0,))]),
        ((A,), 4, [(0, (0,)), (2, ())]),
        ((B,), 10, [(0, ()), (3, (0,))]),
        ((A, B), 10, [(0, (0,)), (3, (0, 1)), (5, (1,))]),
        ((A, LoraRef(name="b", start=0.5)), 5, [(0, (0,)), (3, (1,))]),
        ((LAST,), 5, [(0, ())]),
        ((LoraRef(name="m", start=0.4, end=0.6), LoraRef(name="x")), 5, [(0, (1,)), (2, (0, 1)), (3, (1,))]),
    ],
)
def test_phases(loras: tuple[LoraRef, ...], steps: int, expected: list[tuple[int, tuple[int, ...]]]) -> None:
    """A phase ends where the LoRAs of the next step are others; every LoRA's steps are in a row."""
    asked = task(loras=loras, steps=steps)
    planned = phases(asked)
    assert [(phase.begins, phase.loras) for phase in planned] == expected
    for index, (ref, steps_of) in enumerate(zip(loras, ranges(asked, planned), strict=True)):
        having = [
            i for i in range(steps) if steps_before(ref.start, steps) <= i < steps_before(ref.end, steps)
        ]
        assert steps_of == ((StepRange(having[0] + 1, having[-1] + 1),) if having else ()), index


def test_shares_are_of_the_whole_schedule() -> None:
    """A Transform of the last half begins where the other steps would have ended."""
    asked = task(TaskKind.TRANSFORM, strength=0.5, steps=10, loras=(A, B, LoraRef(name="c", end=0.7)))
    assert [(phase.begins, phase.loras) for phase in phases(asked)] == [(0, (1, 2)), (2, (1,))]
    assert ranges(asked, phases(asked)) == ((), (StepRange(1, 5),), (StepRange(1, 2),))
    nothing = task(TaskKind.TRANSFORM, strength=0.0, loras=(A, B))
    assert phases(nothing) == (Phase(0, 0, (0, 1)),)
    assert ranges(nothing, phases(nothing)) == ((), ())


@pytest.mark.parametrize(
    ("share", "changes", "expected"),
    [
        (0.3, {"loras": (LoraRef(name="x"),)}, [(0, 0, ()), (3, 0, (0,))]),
        (1.0, {"loras": (LoraRef(name="x"),)}, [(0, 0, ()), (9, 0, (0,))]),
        (1.0, {"loras": (A,)}, [(0, 0, ()), (4, 0, (0,)), (5, 5, ())]),
        (0.3, {"loras": (B,)}, [(0, 0, ()), (3, 3, (0,))]),
        (0.3, {"loras": (A,), "strength": 0.5, "kind": TaskKind.TRANSFORM}, [(0, 0, ())]),
        (0.7, {"loras": (B,), "strength": 0.5, "kind": TaskKind.TRANSFORM}, [(0, 0, ()), (2, 0, (0,))]),
        (0.0, {"loras": (LoraRef(name="x"),)}, [(0, 0, (0,))]),
    ],
)
def test_late_phases(share: float, changes: dict, expected: list[tuple[int, int, tuple[int, ...]]]) -> None:
    """The first set may come late by its share of the schedule, and has one of its own steps at least."""
    asked = task(steps=10, late_start=share, **changes)
    planned = late(asked, phases(asked))
    assert [(phase.begins, phase.may_begin, phase.loras) for phase in planned] == expected


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_late_phases_of_two_passes(share: float) -> None:
    """The share is of the first pass; where there is none nothing is late."""
    second = SecondPass(2.0, 96, 96, strength=0.5, steps=8)
    asked = task(steps=4, late_start=share, loras=(LoraRef(name="x"),), second_pass=second)
    planned = late(asked, phases(asked))
    assert [(phase.begins, phase.loras) for phase in planned] == (
        [(0, ()), (2, (0,))] if share else [(0, (0,))]
    )


def test_what_has_begun_late() -> None:
    """Its LoRA's steps are those from there on."""
    asked = task(steps=10, late_start=0.5, loras=(LoraRef(name="x", end=0.8),))
    planned = begun_with(late(asked, phases(asked)), 2)
    assert ranges(asked, planned) == ((StepRange(3, 8),),)


def test_each_pass_is_a_schedule_of_its_own() -> None:
    """The second one's last half begins with the step where its schedule's half is."""
    loras = (LoraRef(name="a", end=0.75), LoraRef(name="b", start=0.75))
    second = SecondPass(2.0, 96, 96, strength=0.5, steps=8)
    asked = task(steps=4, loras=loras, second_pass=second)
    planned = phases(asked)
    assert [(phase.begins, phase.loras) for phase in planned] == [(0, (0,)), (3, (1,)), (4, (0,)), (6, (1,))]
    assert [shown(steps) for steps in ranges(asked, planned)] == ["1 to 3, 5 to 6", "4, 7 to 8"]
