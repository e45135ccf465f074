"""The engine's recent speed."""

from __future__ import annotations

from sdgrpc.engine.timing.meter import Meter, Turnover


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_rates_over_the_window():
    """Rows per call is a mean, steps per second counts every job of a call."""
    clock = Clock()
    meter = Meter(window=10.0, clock=clock)
    for now, jobs, rows in ((0.0, 1, 1), (1.0, 2, 3), (2.0, 1, 2)):
        clock.now = now
        meter.record(jobs, rows)
    assert meter.rates() == (2.0, 2.0)


def test_old_calls_are_forgotten():
    """An idle engine has no speed."""
    clock = Clock()
    meter = Meter(window=10.0, clock=clock)
    meter.record(1, 1)
    clock.now = 11.0
    assert meter.rates() == (0.0, 0.0)


def test_turnover():
    """Every job moves the mean a fifth of the way; only those that count are counted."""
    turnover = Turnover()
    turnover.note(6.0, counted=False)
    assert (turnover.jobs, turnover.mean_seconds) == (0, 2.0)
    turnover.note(2.0, counted=True)
    assert (turnover.jobs, turnover.mean_seconds) == (1, 2.0)
