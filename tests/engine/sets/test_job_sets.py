"""A job's sets one after the other: which is used, which is to be made, which are given back."""

from __future__ import annotations

import pytest
import torch

from sdgrpc.diffusion.prompts.conditioning import Conditioning
from sdgrpc.domain import Phase
from sdgrpc.engine.sets.job_sets import JobSets, ReadySet
from sdgrpc.lora.fusing.lease import Lease
from sdgrpc.lora.fusing.overlay import Overlay


class Made:
    """Sets by their names, and what happens to them."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def ready(self, name: str) -> ReadySet:
        def release() -> None:
            self.told.append(f"{name} released")

        lease = Lease(name, Overlay({}), (), cached=False, fuse_seconds=0.0, on_release=release)
        conditioning = Conditioning(torch.zeros(1, 77, 4))
        return ReadySet(lease, lambda _step: conditioning)

    def sets(self, *phases: Phase) -> JobSets:
        return JobSets(
            phases,
            on_begin=lambda phase, step: self.told.append(f"{phase} begins with {step}"),
            before_release=lambda: self.told.append("waited"),
        )


@pytest.fixture
def made() -> Made:
    return Made()


FIXED = (Phase(0, 0, (0,)), Phase(2, 2, (1,)), Phase(3, 3, ()))
LATE = (Phase(0, 0, ()), Phase(3, 0, (0,)))


def test_each_phase_has_its_set(made: Made) -> None:
    """A set that is there early is used from its phase's step on, the one before is given back then."""
    sets = made.sets(*FIXED)
    first, second = made.ready("a"), made.ready("b")
    assert sets.next_phase is FIXED[0]
    sets.put(first)
    assert sets.next_phase is None, "one set ahead is enough"
    assert sets.conditioning_at(0) is first.told(0)
    assert sets.next_phase is FIXED[1]
    sets.put(second)
    assert sets.next_phase is None
    assert sets.conditioning_at(1) is first.told(0)
    assert sets.current is first
    assert made.told == ["0 begins with 0"]
    assert sets.conditioning_at(2) is second.told(0)
    assert sets.current is second
    assert made.told[1:] == ["1 begins with 2", "waited", "a released"]
    assert sets.next_phase is FIXED[2]


def test_a_set_that_is_not_there_is_waited_for(made: Made) -> None:
    """As often as it is asked for, until it was put."""
    sets = made.sets(*FIXED)
    sets.put(made.ready("a"))
    sets.conditioning_at(1)
    assert sets.conditioning_at(2) is None
    assert sets.conditioning_at(2) is None
    second = made.ready("b")
    sets.put(second)
    assert sets.conditioning_at(2) is second.told(0)


def test_a_late_set_begins_with_the_next_step(made: Made) -> None:
    """Not within one: the second evaluation of a step has the set of the first."""
    sets = made.sets(*LATE)
    base, late = made.ready("base"), made.ready("late")
    sets.put(base)
    assert sets.conditioning_at(0) is base.told(0)
    assert sets.conditioning_at(1) is base.told(0)
    sets.put(late)
    assert sets.conditioning_at(1) is base.told(0)
    assert sets.conditioning_at(2) is late.told(0)
    assert "1 begins with 2" in made.told


def test_a_late_set_is_waited_for_in_the_end(made: Made) -> None:
    """The share is a bound."""
    sets = made.sets(*LATE)
    sets.put(made.ready("base"))
    assert sets.conditioning_at(2) is not None
    assert sets.conditioning_at(3) is None
    sets.put(made.ready("late"))
    assert sets.conditioning_at(3) is not None
    assert "1 begins with 3" in made.told


def test_closing_gives_back_every_set(made: Made) -> None:
    """The one in use, the one that waits, and the one that comes afterwards; each once."""
    sets = made.sets(*FIXED)
    sets.put(made.ready("a"))
    sets.conditioning_at(0)
    sets.put(made.ready("b"))
    sets.close()
    sets.close()
    sets.put(made.ready("c"))
    assert [one for one in made.told if "released" in one] == ["a released", "b released", "c released"]
