"""The cache of encoded prompts."""

from __future__ import annotations

import threading

import torch

from sdgrpc.diffusion.prompts.cache import Encoded, PromptCache

SIZE = 400


def prompt() -> Encoded:
    """An encoded prompt of SIZE bytes."""
    return Encoded(torch.zeros(1, 9, 10), torch.zeros(1, 10))


def test_what_was_put_is_there() -> None:
    """The very record, and the counters say how often."""
    cache, kept = PromptCache(10 * SIZE), prompt()
    assert cache.get("a") is None
    cache.put("a", kept)
    assert cache.get("a") is kept
    stats = cache.stats()
    assert (stats.prompts, stats.bytes, stats.hits, stats.misses) == (1, SIZE, 1, 1)


def test_the_least_recently_used_makes_room() -> None:
    """Asking for a prompt counts as use; the bytes stay within the capacity."""
    cache = PromptCache(2 * SIZE + 1)
    for key in ("a", "b"):
        cache.put(key, prompt())
    cache.get("a")
    cache.put("c", prompt())
    assert [cache.get(key) is not None for key in ("a", "b", "c")] == [True, False, True]
    assert cache.stats().bytes == 2 * SIZE


def test_the_same_key_again_replaces() -> None:
    """Two threads may have encoded it at once; it is counted once."""
    cache, later = PromptCache(10 * SIZE), prompt()
    cache.put("a", prompt())
    cache.put("a", later)
    assert cache.get("a") is later
    assert cache.stats().bytes == SIZE


def test_what_is_larger_than_the_cache_is_not_kept() -> None:
    """And drives nothing out; a capacity of 0 keeps nothing."""
    cache = PromptCache(SIZE)
    cache.put("a", prompt())
    cache.put("b", Encoded(torch.zeros(1, 77, 10)))
    assert cache.get("a") is not None
    assert cache.get("b") is None
    off = PromptCache(0)
    off.put("a", prompt())
    assert off.get("a") is None


def test_threads_share_it() -> None:
    """The bound holds whoever puts."""
    cache = PromptCache(5 * SIZE)

    def work(name: int) -> None:
        for number in range(200):
            cache.put((name, number % 7), prompt())
            cache.get((name, number % 5))

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats = cache.stats()
    assert (stats.prompts, stats.bytes) == (5, 5 * SIZE)
    assert stats.hits + stats.misses == 800
