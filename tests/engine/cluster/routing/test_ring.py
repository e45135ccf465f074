"""The ring of hashes."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from sdgrpc.engine.cluster.routing.ring import Ring

KEYS = [f"set {number}" for number in range(2000)]


def ring_of(*names: str) -> Ring:
    ring = Ring()
    for name in names:
        ring.add(name)
    return ring


def test_everybody_finds_the_same_order() -> None:
    """Whatever the order in which the replicas were met."""
    one, other = ring_of("a", "b", "c", "d"), ring_of("d", "b", "a", "c")
    assert all(list(one.walk(key)) == list(other.walk(key)) for key in KEYS[:50])
    assert sorted(one.walk("x")) == ["a", "b", "c", "d"]


def test_the_first_of_some_is_the_first_of_the_walk() -> None:
    """Two ways of finding it agree."""
    names = [str(number) for number in range(9)]
    ring, chance = ring_of(*names), random.Random(1)  # noqa: S311
    for key in KEYS[:200]:
        some = chance.sample(names, 3)
        assert ring.first(key, some) == next(name for name in ring.walk(key) if name in some)


@pytest.mark.parametrize("count", [3, 10])
def test_one_that_leaves_moves_its_own_keys_alone(count: int) -> None:
    """Every other key stays where it was, and its own ones are about a share of all."""
    ring = ring_of(*map(str, range(count)))
    before = {key: next(ring.walk(key)) for key in KEYS}
    ring.remove("1")
    moved = [key for key in KEYS if next(ring.walk(key)) != before[key]]
    assert {before[key] for key in moved} == {"1"}
    assert 0.4 / count < len(moved) / len(KEYS) < 2 / count
    ring.add("1")
    ring.add("1")
    assert {key: next(ring.walk(key)) for key in KEYS} == before


def test_shares_are_about_equal() -> None:
    """None of ten has less than half or more than double its share."""
    ring = ring_of(*map(str, range(10)))
    shares = Counter(next(ring.walk(key)) for key in KEYS)
    assert all(100 < share < 400 for share in shares.values())


def test_an_empty_ring_has_no_order() -> None:
    """And removing what is not there is nothing."""
    ring = Ring()
    ring.remove("a")
    assert not list(ring.walk("x"))
