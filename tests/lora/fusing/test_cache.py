"""Sets fused once: what the cache promises."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

from sdgrpc.errors import LoraMalformed
from sdgrpc.lora.fusing.cache import Lease, SetStats
from sdgrpc.lora.store.library import FoundLora
from tests.support.fused import EVERYWHERE, fused_weights, sets
from tests.support.loras import (
    CROSS,
    LINEAR,
    kohya_file,
    lora_file,
    ref,
    small_components,
    weight_of,
)


def test_ten_requests_of_one_set_fuse_once() -> None:
    """The first makes it, nine find it; all see the same tensors."""
    cache = sets()
    file = lora_file(kohya_file(*EVERYWHERE))
    leases = []
    for _ in range(10):
        leases.append(cache.acquire([(file, ref(0.7))]))
        leases[-1].release()
    assert [lease.cached for lease in leases] == [False] + [True] * 9
    assert [lease.fuse_seconds > 0 for lease in leases] == [True] + [False] * 9
    assert all(lease.overlay is leases[0].overlay for lease in leases)
    assert cache.stats().fuse_count == 1
    cache.acquire([(file, ref(0.6))])
    assert cache.stats().fuse_count == 2


def in_threads(count: int, work: Callable[[int], None]) -> None:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()


def test_two_at_once_fuse_once() -> None:
    """While one thread fuses a set, others that want it wait for that fuse."""
    cache = sets()
    adapter = lora_file(kohya_file(*EVERYWHERE)).adapter()
    inside, leave = threading.Event(), threading.Event()

    def slow() -> object:
        inside.set()
        assert leave.wait(60)
        return adapter

    file = FoundLora("a", adapter.sha256, slow)
    leases: list[Lease] = []
    first = threading.Thread(target=lambda: leases.append(cache.acquire([(file, ref())])))
    first.start()
    assert inside.wait(60)
    joined = threading.Thread(target=lambda: leases.append(cache.acquire([(file, ref())])))
    joined.start()
    leave.set()
    first.join(60)
    joined.join(60)
    assert sorted(lease.cached for lease in leases) == [False, True]
    assert cache.stats().fuse_count == 1
    assert leases[0].overlay is leases[1].overlay


def test_many_threads_and_sets_under_pressure() -> None:
    """Eight threads over five sets in a cache with room for two: every lease holds the right weights."""
    components = small_components()
    files = [lora_file(kohya_file(LINEAR, seed=n), str(n)) for n in range(5)]
    expected = [fused_weights(sets(components).acquire([(file, ref())]))[LINEAR] for file in files]
    cache = sets(components, capacity=2 * expected[0].nbytes)
    wrong: list[int] = []

    def work(number: int) -> None:
        for turn in range(40):
            which = (number * 7 + turn) % 5
            with cache.acquire([(files[which], ref())]) as lease:
                if not torch.equal(fused_weights(lease)[LINEAR], expected[which]):
                    wrong.append(which)

    in_threads(8, work)
    assert wrong == []
    assert cache.stats().sets <= 2
    assert cache.stats().bytes <= 2 * expected[0].nbytes


def test_the_least_recently_used_set_goes_first() -> None:
    """Room for two: the one used longest ago makes room, and is fused anew when wanted again."""
    files = [lora_file(kohya_file(LINEAR, seed=n)) for n in range(3)]
    size = weight_of(small_components(), LINEAR).nbytes
    cache = sets(capacity=2 * size)

    def use(number: int) -> bool:
        with cache.acquire([(files[number], ref())]) as lease:
            return lease.cached

    assert [use(n) for n in (0, 1, 0, 2, 0, 1)] == [False, False, True, False, True, False]
    assert cache.stats() == SetStats(sets=2, bytes=2 * size, fuse_count=4, hits=2, misses=4, evictions=2)


def test_a_set_in_use_is_never_evicted() -> None:
    """It stays, untouched, however little room there is; once released it goes."""
    files = [lora_file(kohya_file(LINEAR, seed=n)) for n in range(3)]
    cache = sets(capacity=1)
    held = cache.acquire([(files[0], ref())])
    before = fused_weights(held)[LINEAR].clone()
    for file in files[1:]:
        cache.acquire([(file, ref())]).release()
    assert torch.equal(fused_weights(held)[LINEAR], before)
    assert cache.acquire([(files[0], ref())]).cached
    held.release()
    assert cache.stats().sets == 1  # the second lease of it
    held.release()
    assert cache.stats().sets == 1, "releasing twice must not take the other's share"


def test_memory_of_evicted_sets_is_used_again() -> None:
    """A new set of the same shapes moves into the memory of the one that it displaces."""
    files = [lora_file(kohya_file(*EVERYWHERE, seed=n)) for n in range(3)]
    size = sum(weight_of(small_components(), path).nbytes for path in EVERYWHERE)
    cache = sets(capacity=size)
    places = []
    for file in files:
        with cache.acquire([(file, ref())]) as lease:
            places.append({tensor.data_ptr() for tensor in fused_weights(lease).values()})
    assert places[0] == places[1] == places[2]
    assert cache.stats().bytes == size


def test_a_failure_leaves_nothing() -> None:
    """Who wants a set that fails gets the reason; the next one tries anew."""
    cache = sets()
    good = lora_file(kohya_file(LINEAR)).adapter()
    attempts: list[int] = []
    inside, leave = threading.Event(), threading.Event()

    def flaky() -> object:
        attempts.append(1)
        if len(attempts) == 1:
            inside.set()
            assert leave.wait(60)
            raise LoraMalformed("a", "broken")
        return good

    file = FoundLora("a", good.sha256, flaky)
    caught: list[Exception] = []

    def want() -> None:
        try:
            cache.acquire([(file, ref())])
        except LoraMalformed as error:
            caught.append(error)

    first = threading.Thread(target=want)
    first.start()
    assert inside.wait(60)
    leave.set()
    first.join(60)
    assert len(caught) == 1
    assert cache.stats().sets == 0
    assert not cache.acquire([(file, ref())]).cached


def test_a_hundred_sets_in_turn_keep_the_memory_flat(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of mixed shapes under a budget of two: sets and spare memory never hold more than it."""
    attention, everywhere = (LINEAR, CROSS), EVERYWHERE
    size = sum(weight_of(small_components(), path).nbytes for path in everywhere)
    cache = sets(capacity=2 * size)
    fresh: list[int] = []
    empty_like = torch.empty_like

    def counted(like: torch.Tensor, **options: Any) -> torch.Tensor:
        fresh.append(like.nbytes)
        return empty_like(like, **options)

    monkeypatch.setattr(torch, "empty_like", counted)
    for number in range(100):
        file = lora_file(kohya_file(*(attention if number % 3 else everywhere), seed=number))
        with cache.acquire([(file, ref())]) as lease:
            assert cache.stats().bytes + cache._spare.nbytes <= 2 * size
            assert lease.overlay.nbytes == sum(
                weight_of(small_components(), path).nbytes for path in fused_weights(lease)
            )
    assert sum(fresh) <= 4 * size, "memory of evicted sets is used again"
