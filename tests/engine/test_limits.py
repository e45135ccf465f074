"""How many rows a call may have."""

from __future__ import annotations

from sdgrpc.engine.job import CallSize
from sdgrpc.engine.limits import FIRST_PATIENCE, REMEMBERED, RowLimits

SMALL, LARGE = CallSize("m", (4, 8, 8)), CallSize("m", (4, 64, 64))


def succeed(limits: RowLimits, times: int, rows: int) -> None:
    for _ in range(times):
        limits.succeeded(LARGE, rows)


def test_a_model_can_have_its_own_bound():
    """Models that are not named get the common one."""
    limits = RowLimits(8, {"big": 2})
    assert (limits.of(CallSize("big")), limits.of(CallSize("other"))) == (2, 8)


def test_too_many_rows_halve_the_bound_of_their_size_only():
    """Another shape of the same model keeps its bound."""
    limits = RowLimits(8)
    assert limits.failed(LARGE, 6)
    assert (limits.of(LARGE), limits.of(SMALL)) == (3, 8)


def test_one_row_cannot_be_halved():
    """Then the job has to fail, and the bound stays."""
    limits = RowLimits(8)
    assert limits.failed(LARGE, 2)
    assert not limits.failed(LARGE, 1)
    assert limits.of(LARGE) == 1


def test_the_bound_is_lifted_after_many_full_calls():
    """Memory that a neighbour held for a while is used again; calls below the bound prove nothing."""
    limits = RowLimits(6)
    limits.failed(LARGE, 4)
    succeed(limits, FIRST_PATIENCE - 1, rows=2)
    succeed(limits, FIRST_PATIENCE, rows=1)
    assert limits.of(LARGE) == 2
    succeed(limits, 1, rows=2)
    assert limits.of(LARGE) == 4
    succeed(limits, FIRST_PATIENCE, rows=4)
    assert limits.of(LARGE) == 6, "never above the operator's"
    succeed(limits, 2 * FIRST_PATIENCE, rows=6)
    assert limits.of(LARGE) == 6


def test_a_try_that_fails_makes_the_next_one_rarer():
    """A device that is simply too small is asked twice as seldom each time."""
    limits = RowLimits(4)
    limits.failed(LARGE, 4)
    succeed(limits, FIRST_PATIENCE, rows=2)
    limits.failed(LARGE, 4)
    succeed(limits, 2 * FIRST_PATIENCE - 1, rows=2)
    assert limits.of(LARGE) == 2
    succeed(limits, 1, rows=2)
    assert limits.of(LARGE) == 4


def test_what_a_lone_job_tries_raises_the_bound_and_does_not_lower_it():
    """More rows than the bound that fit are the new bound; that they do not fit was known."""
    limits = RowLimits(8)
    limits.failed(LARGE, 8)
    limits.failed(LARGE, 4)
    assert limits.failed(LARGE, 8)
    assert (limits.of(LARGE), limits.configured(LARGE)) == (2, 8)
    limits.succeeded(LARGE, 8)
    assert limits.of(LARGE) == 8


def test_halving_twice_is_no_failed_try():
    """Two failures in a row while the bound goes down do not make the way up longer."""
    limits = RowLimits(8)
    limits.failed(LARGE, 8)
    limits.failed(LARGE, 4)
    succeed(limits, FIRST_PATIENCE, rows=2)
    assert limits.of(LARGE) == 4


def test_what_is_remembered_is_bounded():
    """The bound that was learned first is forgotten first."""
    limits = RowLimits(8)
    for side in range(REMEMBERED + 1):
        limits.failed(CallSize("m", (side,)), 8)
    assert (limits.of(CallSize("m", (0,))), limits.of(CallSize("m", (1,)))) == (8, 4)
