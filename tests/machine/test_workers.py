"""Work shared out among threads of one core each."""

from __future__ import annotations

import threading

import pytest
import torch

from sdgrpc.machine.workers import Workers


def test_every_item_is_done_once() -> None:
    """More items than threads, fewer, and none."""
    workers = Workers(3)
    for count in (20, 2, 0):
        done: list[int] = []
        workers.share(done.append, range(count))
        assert sorted(done) == list(range(count))


def test_its_threads_use_one_core_and_others_what_they_did() -> None:
    """Neither the thread that made them nor one started later is slowed down."""
    before = torch.get_num_threads()
    workers = Workers(2)
    inside: list[int] = []
    workers.share(lambda _: inside.append(torch.get_num_threads()), range(8))
    assert set(inside) == {1}
    assert torch.get_num_threads() == before
    later: list[int] = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [before]


def test_a_failure_is_raised_and_the_threads_live_on() -> None:
    """Items that nobody had begun are left out; the next work is done as ever."""
    workers = Workers(2)
    with pytest.raises(ZeroDivisionError):
        workers.share(lambda number: 1 // number, range(10))
    done: list[int] = []
    workers.share(done.append, range(5))
    assert sorted(done) == [0, 1, 2, 3, 4]
