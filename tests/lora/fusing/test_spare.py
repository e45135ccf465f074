"""Memory made ready for sets to come."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sdgrpc.lora.fusing import cache as caches
from sdgrpc.lora.fusing import spare
from sdgrpc.lora.fusing.cache import FusedSets
from sdgrpc.lora.fusing.spare import in_background, touched
from tests.support.fused import EVERYWHERE, fused_weights, sets
from tests.support.loras import kohya_file, lora_file, ref, small_components, weight_of

SIZE = sum(weight_of(small_components(), path).nbytes for path in EVERYWHERE)


@pytest.fixture(autouse=True)
def _small_sets_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of small models are below what a thread is begun for."""
    monkeypatch.setattr(spare, "LEAST", 1)


def settled(cache: FusedSets) -> FusedSets:
    """Wait for the thread, if one was begun."""
    if cache._making_ready is not None:
        cache._making_ready.join(60)
        assert not cache._making_ready.is_alive()
    return cache


@pytest.mark.skipif(sys.platform != "linux", reason="it counts a thread's page faults as Linux does")
def test_touched_memory_costs_no_page_faults() -> None:
    """They are behind it: 64 MiB can be filled with next to none."""
    import resource

    memory = touched(torch.empty(4 << 20, 4))
    assert memory.shape == (16 << 20,)
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    memory.numpy().fill(1.0)
    assert resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before < 1_000


def test_the_next_set_finds_memory() -> None:
    """As much as the first one took; what it holds is the same to the bit."""
    cache, other = sets(), sets(capacity=0)
    files = [lora_file(kohya_file(*EVERYWHERE, seed=seed)) for seed in range(2)]
    cache.acquire([(files[0], ref(0.7))])
    assert settled(cache)._spare.nbytes == SIZE
    ready = {memory.data_ptr() for free in cache._spare._free.values() for memory in free}
    weights = fused_weights(cache.acquire([(files[1], ref(0.7))]))
    assert {weight.data_ptr() for weight in weights.values()} == ready
    assert settled(cache)._spare.nbytes == SIZE, "and so does the one after"
    expected = fused_weights(other.acquire([(files[1], ref(0.7))]))
    assert all(torch.equal(weight, expected[path]) for path, weight in weights.items())


@pytest.mark.parametrize("room", [1.0, 1.5])
def test_the_bound_holds(room: float) -> None:
    """Sets and what is made ready beside them stay within the cache's bytes."""
    cache = sets(capacity=int(room * SIZE))
    file = lora_file(kohya_file(*EVERYWHERE))
    cache.acquire([(file, ref(0.7))]).release()
    assert settled(cache)._spare.nbytes <= (room - 1) * SIZE
    assert (cache._spare.nbytes > 0) == (room > 1)


def test_a_dropped_cache_goes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread keeps none of it, and stops after the tensor that it is at."""
    inside, leave = threading.Event(), threading.Event()
    made: list[Tensor] = []

    def slow(like: Tensor) -> Tensor:
        inside.set()
        assert leave.wait(60)
        made.append(like)
        return touched(like)

    monkeypatch.setattr(caches, "touched", slow)
    cache = sets()
    cache.acquire([(lora_file(kohya_file(*EVERYWHERE)), ref(0.7))]).release()
    assert inside.wait(60)
    thread, gone = cache._making_ready, weakref.ref(cache)
    del cache
    leave.set()
    assert thread is not None
    thread.join(60)
    gc.collect()
    assert gone() is None
    assert len(made) == 1


def test_the_thread_stops_when_it_is_told() -> None:
    """By the first no; others are not asked."""
    asked: list[int] = []

    def twice(like: Tensor) -> bool:
        asked.append(like.numel())
        return len(asked) < 2

    thread = in_background(twice, [torch.empty(size) for size in (3, 2, 1)])
    assert thread is not None
    thread.join(60)
    assert asked == [3, 2]


@pytest.mark.parametrize(
    "weights",
    [list, lambda: [torch.empty(4, device="meta")], lambda: [torch.ones(2, 4, 3, 3).to_mkldnn()]],
)
def test_nothing_is_begun_for_what_cannot_be_used(weights: Callable[[], list[Tensor]]) -> None:
    """No weights, those of another device, and packed ones."""
    assert in_background(lambda _: True, weights()) is None


ENDING = """
import threading, torch
from sdgrpc.lora.fusing.spare import in_background, touched
begun = threading.Event()
def make_ready(like):
    touched(like)
    begun.set()
    return True
in_background(make_ready, [torch.empty(1 << 22)] * 100_000)
begun.wait()
print("ends", flush=True)
"""


def test_a_process_ends_while_memory_is_made_ready() -> None:
    """With no error, and without the rest of 1.6 TB."""
    done = subprocess.run(
        [sys.executable, "-c", ENDING], check=False, capture_output=True, text=True, timeout=100
    )
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["ends"], "")


def test_small_sets_begin_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their memory costs less than a thread."""
    monkeypatch.setattr(spare, "LEAST", 16 << 20)
    assert in_background(lambda _: True, [torch.empty(1024)]) is None
