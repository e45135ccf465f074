"""A lock for each of many things."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from sdgrpc.machine.keyed_locks import KeyedLocks


def test_one_at_a_time_for_a_key() -> None:
    """Of many threads that want the same, one is inside; afterwards nothing is left."""
    locks, inside, most = KeyedLocks(), [0], [0]

    def work(_: int) -> None:
        for _ in range(200):
            with locks.of("a"):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                inside[0] -= 1

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    assert (most[0], inside[0], len(locks)) == (1, 0, 0)


def test_other_keys_do_not_wait() -> None:
    """A thread inside with one key keeps nobody from another, but those who want the same."""
    locks, entered = KeyedLocks(), threading.Event()

    def enter() -> None:
        with locks.of("a"):
            entered.set()

    with locks.of("a"):
        thread = threading.Thread(target=enter)
        thread.start()
        with locks.of("b"):
            assert not entered.is_set()
    thread.join(30)
    assert entered.is_set()


def test_a_failure_gives_the_turn_back() -> None:
    """Whatever happens inside."""
    locks = KeyedLocks()
    with pytest.raises(ValueError, match="it"), locks.of("a"):
        raise ValueError("it")
    with locks.of("a"):
        assert len(locks) == 1
