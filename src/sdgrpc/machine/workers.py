"""Threads that share a job out among the processor's cores, each computing on one core alone.

torch splits every single operation over all cores and waits for the slowest. For thousands of small ones
that costs more than it gains, above all on a busy machine, with the steps of another job say. Here whole
weights are shared out, and no core waits for another before the end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import lru_cache
from typing import TypeVar

import torch

from sdgrpc.machine.standing_back import BEHIND_STEPS, stand_back

Item = TypeVar("Item")


class Workers:
    """`count` threads whose torch operations use one core each, and stand back by `behind`. Thread safe.

    Make it before the threads that draw: for a moment torch's default, which new threads take, is one core.
    """

    def __init__(self, count: int, name: str = "sdgrpc-fuse", *, behind: int = 0) -> None:
        self.count = count
        all_set = threading.Barrier(count + 1)
        self._pool = ThreadPoolExecutor(count, name, initializer=_use_one_core, initargs=(all_set, behind))
        usual = torch.get_num_threads()
        for _ in range(count):
            self._pool.submit(int)
        all_set.wait()
        torch.set_num_threads(usual)

    def share(self, work: Callable[[Item], object], items: Iterable[Item]) -> None:
        """Do `work` on every item, in this order but side by side; returns when all threads have stopped.

        Raises:
            Exception: the first that `work` raised; items that nobody had begun are left out then.

        """
        turns, turn = iter(items), threading.Lock()
        failed = threading.Event()

        def next_items() -> Iterable[Item]:
            while not failed.is_set():
                with turn:
                    try:
                        item = next(turns)
                    except StopIteration:
                        return
                yield item

        def drain() -> None:
            try:
                for item in next_items():
                    work(item)
            except BaseException:
                failed.set()
                raise

        done = [self._pool.submit(drain) for _ in range(self.count)]
        wait(done)
        for each in done:
            each.result()


def _use_one_core(all_set: threading.Barrier, behind: int) -> None:
    stand_back(behind)
    torch.set_num_threads(1)
    torch.get_num_threads()  # otherwise the thread's first operation would take the default again
    all_set.wait()


@lru_cache(maxsize=1)
def workers() -> Workers:
    """Return the process's workers, as many as torch would use cores; steps go before them."""
    return Workers(torch.get_num_threads(), behind=BEHIND_STEPS)


@lru_cache(maxsize=1)
def step_workers() -> Workers:
    """Return those that steps are shared among; a step never waits for weights that the others fuse."""
    return Workers(torch.get_num_threads(), "sdgrpc-rows")


def one_thread() -> None:
    """Let this process compute on one core: for thousands of small products waiting costs more."""
    torch.set_num_threads(1)
