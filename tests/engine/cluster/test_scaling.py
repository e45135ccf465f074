"""How many replicas the queue asks for."""

from __future__ import annotations

from sdgrpc.engine.cluster.scaling import FEWER_SECONDS, MORE_SECONDS, Scaler


def played(scaler: Scaler, replicas: int, load: list[tuple[float, int, int]]) -> int:
    """How many there are after a load of (time, running, queued), where each wish comes true at once."""
    for now, running, queued in load:
        replicas = scaler.wanted(replicas, running, queued, now)
    return replicas


def test_a_long_queue_gets_another_replica() -> None:
    """Once it has lasted, one at a time, and never more than may be."""
    scaler = Scaler(1, 3)
    assert played(scaler, 1, [(0.0, 1, 9), (MORE_SECONDS - 0.1, 1, 9)]) == 1
    assert played(scaler, 1, [(MORE_SECONDS, 1, 9)]) == 2
    assert played(Scaler(1, 3), 1, [(float(second), 1, 99) for second in range(100)]) == 3


def test_a_short_queue_gets_none() -> None:
    """A burst that ends in between begins to count anew."""
    load = [(0.0, 1, 9), (MORE_SECONDS - 1, 1, 0), (MORE_SECONDS, 1, 9), (MORE_SECONDS + 1, 1, 9)]
    assert played(Scaler(1, 3), 1, load) == 1


def test_an_idle_replica_leaves() -> None:
    """After a long while, and never the last ones."""
    quiet = [(float(second), 0, 0) for second in range(int(10 * FEWER_SECONDS))]
    assert played(Scaler(1, 3), 3, quiet[: int(FEWER_SECONDS)]) == 3
    assert played(Scaler(1, 3), 3, quiet) == 1
    assert played(Scaler(2, 3), 3, quiet) == 2


def test_a_quiet_while_that_is_broken_begins_anew() -> None:
    """One job that waits in between keeps the replica for another whole while."""
    load = [(0.0, 0, 0), (FEWER_SECONDS - 1, 0, 1), (FEWER_SECONDS, 0, 0), (2 * FEWER_SECONDS - 1, 0, 0)]
    assert played(Scaler(1, 3), 2, load) == 2
    assert played(Scaler(1, 3), 2, [*load, (2 * FEWER_SECONDS, 0, 0)]) == 1


def test_one_more_than_needed_may_be_kept() -> None:
    """At half of the others' load, and not above it: no number lies where one comes and goes in turns."""
    quiet = [(float(second), 2, 0) for second in range(int(2 * FEWER_SECONDS))]
    assert played(Scaler(1, 9), 5, quiet[: int(FEWER_SECONDS) + 1]) == 4
    assert played(Scaler(1, 9), 4, quiet) == 4


def test_a_load_that_needs_all_keeps_all() -> None:
    """Two of two are busy: neither leaves, and without a queue none comes."""
    assert played(Scaler(1, 4), 2, [(float(second), 2, 0) for second in range(1000)]) == 2


def test_the_bounds_can_change() -> None:
    """A number outside of them is led back one by one."""
    assert Scaler(3, 3).wanted(1, 0, 0, 0.0) == 2
    assert Scaler(1, 1).wanted(3, 9, 9, 0.0) == 2
