"""When a call counts as stuck."""

from __future__ import annotations

import pytest

from sdgrpc.engine.supervision.call_times import REMEMBERED, CallShape, CallTimes, RunningCall

SMALL, LARGE = CallShape("predict", "m", (2, 8, 8)), CallShape("predict", "m", (2, 16, 16))


def times(least: float = 60.0, factor: float = 10.0) -> CallTimes:
    return CallTimes(least=least, factor=factor)


def test_ten_times_the_longest_of_its_shape_but_never_less_than_the_least() -> None:
    """A call of 2 seconds may take 60, one of 7 may take 70."""
    known = times()
    assert known.allowed(SMALL) == 60
    known.returned(SMALL, 2.0)
    assert known.allowed(SMALL) == 60
    known.returned(SMALL, 7.0)
    known.returned(SMALL, 1.0)
    assert known.allowed(SMALL) == 70


def test_a_shape_that_never_returned_is_judged_by_others_of_its_model() -> None:
    """Four times the pixels may take sixteen times as long; another model tells nothing."""
    known = times()
    known.returned(SMALL, 2.0)
    assert known.allowed(LARGE) == 2.0 * 4**2 * 10
    assert known.allowed(CallShape("predict", "m", (1, 8, 8))) == 60
    assert known.allowed(CallShape("predict", "other", (2, 64, 64))) == 60
    assert known.allowed(CallShape("finish", "m", (2, 64, 64))) == 60


def test_patience_stretches_the_least() -> None:
    """Work whose length nothing tells has longer."""
    assert times().allowed(CallShape("load", "m", patience=10)) == 600


def test_the_call_that_is_stuck_is_found() -> None:
    """Not before its time, not after it returned, and not while it gives signs of life."""
    known = times()
    call = RunningCall(SMALL, 0.0, 0.0)
    number = known.begin(call)
    assert known.stuck(60.0) is None
    assert known.stuck(60.1) is call
    call.beaten = 30.0
    assert known.stuck(60.1) is None
    known.end(number)
    known.end(number)
    assert known.stuck(1e9) is None


@pytest.mark.parametrize("more", [0, 1])
def test_what_is_remembered_is_bounded(more: int) -> None:
    """The shape that was used longest ago is forgotten first."""
    known = times(least=0.0)
    for side in range(REMEMBERED + more):
        known.returned(CallShape(f"verb {side}"), 1.0)
    assert known.allowed(CallShape("verb 0")) == (0.0 if more else 10.0)
    assert known.allowed(CallShape("verb 1")) == 10.0
