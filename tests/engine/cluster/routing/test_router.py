"""Affinity with bounded load."""

from __future__ import annotations

import math
import random

import pytest

from sdgrpc.engine.cluster.routing.holdings import Held, Wanted
from sdgrpc.engine.cluster.routing.router import Router, Why

A = Wanted("sd15", "set a", frozenset({"one", "two"}))


def router_of(count: int, factor: float = 1.5, seed: int = 1) -> Router:
    router = Router(factor, random.Random(seed))  # noqa: S311
    for number in range(count):
        router.add(f"r{number}")
    return router


def test_a_job_goes_where_its_set_is() -> None:
    """Also where another replica has less to do."""
    router = router_of(4)
    for name in ("r0", "r1"):
        router.report(name, Held(), load=1)
    router.report("r2", Held(sets=frozenset({A.set_key})), load=1)
    assert router.loads["r3"] == 0
    assert router.choose(A) == ("r2", Why.SET)


def test_of_several_holders_the_least_loaded_takes_it() -> None:
    """And where they are equal, every front door takes the same."""
    routers = [router_of(4, seed=1), router_of(4, seed=2)]
    held = Held(sets=frozenset({A.set_key}))
    for router in routers:
        for name, load in (("r0", 2), ("r1", 1), ("r3", 2)):
            router.report(name, held, load=load)
        assert router.choose(A) == ("r1", Why.SET)
        router.report("r1", held, load=2)
        router.report("r2", Held(), load=2)
    one, other = (router.choose(A) for router in routers)
    assert one == other
    assert one.why is Why.SET


def test_a_full_holder_has_a_helper() -> None:
    """Beyond factor times the mean a less loaded replica fuses the set as well, and is then a holder."""
    router = router_of(4)
    router.report("r0", Held(sets=frozenset({A.set_key})), load=6)
    choice = router.choose(A)
    assert choice is not None
    assert choice.why is Why.LOAD
    assert choice.name != "r0"
    router.begin(choice.name, A)
    again = router.choose(A)
    assert again == (choice.name, Why.SET)


def test_where_all_are_as_full_the_holder_keeps_it() -> None:
    """Nobody fuses a set to wait as long elsewhere."""
    router = router_of(2, factor=1.0)
    router.report("r0", Held(sets=frozenset({A.set_key})), load=5)
    router.report("r1", Held(), load=5)
    assert router.choose(A) == ("r0", Why.SET)


def test_files_come_before_models_and_models_before_the_ring() -> None:
    """A set that nobody holds goes to who has the most of its files, then to who has its model."""
    router = router_of(4)
    assert router.choose(A) == (router_of(4).choose(A).name, Why.RING)
    router.report("r3", Held(models=frozenset({"sd15"})))
    assert router.choose(A) == ("r3", Why.MODEL)
    router.report("r1", Held(files=frozenset({"one"})))
    assert router.choose(A) == ("r1", Why.FILES)
    router.report("r2", Held(files=frozenset({"one", "two"})))
    assert router.choose(A) == ("r2", Why.FILES)


def test_a_new_set_drives_out_none_while_another_has_room() -> None:
    """Though it has none of its files; one that is full keeps what it holds."""
    router, files = router_of(3), frozenset({"one", "two"})
    router.report("r0", Held(frozenset({"set b"}), files, frozenset({"sd15"}), is_full=True))
    router.report("r1", Held(is_full=True))
    assert router.choose(A) == ("r2", Why.RING)
    assert router.choose(Wanted("sd15", "set b", files)) == ("r0", Why.SET)
    assert router.choose(A, without=["r2"]) == ("r0", Why.FILES)
    router.report("r2", Held(), load=9)
    assert router.choose(A) == ("r0", Why.FILES)
    router.report("r2", Held(is_full=True), load=0)
    assert router.choose(A) == ("r0", Why.FILES)
    router.report("r1", Held())
    assert router.choose(A) == ("r1", Why.RING)


def test_two_front_doors_agree_on_unknown_sets() -> None:
    """Without a word between them, whatever chance each has."""
    one, other = router_of(10, seed=1), router_of(10, seed=2)
    for number in range(100):
        wanted = Wanted("sd15", f"set {number}")
        assert one.choose(wanted) == other.choose(wanted)


@pytest.mark.parametrize("factor", [1.0, 1.25, 1.5, 3.0])
@pytest.mark.parametrize("count", [2, 7, 50])
def test_no_load_exceeds_the_bound(factor: float, count: int) -> None:
    """While jobs only come, the most loaded replica has at most the bound, computed here by itself.

    A set's holders are left for the less loaded of two random ones, which is no bound but a tendency; so
    every job has a set of its own, as the theorem asks.
    """
    router = router_of(count, factor)
    for number in range(300):
        wanted = Wanted("sd15", f"set {number}")
        choice = router.choose(wanted)
        assert choice is not None
        router.begin(choice.name, wanted)
        assert max(router.loads.values()) <= math.ceil(factor * (number + 1) / count)


def test_one_popular_set_spreads() -> None:
    """A set that everybody wants is fused on as many replicas as the bound needs, and no others."""
    router = router_of(10)
    for _ in range(200):
        choice = router.choose(A)
        assert choice is not None
        router.begin(choice.name, A)
    assert max(router.loads.values()) <= 1.5 * 20 + 2
    holders = [name for name, load in router.loads.items() if load]
    assert len(holders) == math.ceil(10 / 1.5)


def test_jobs_without_loras_are_spread() -> None:
    """Over those who have the model, and over all once these are full."""
    router = router_of(4)
    plain = Wanted("sd15")
    router.report("r0", Held(models=frozenset({"sd15"})))
    assert router.choose(plain) == ("r0", Why.MODEL)
    router.report("r0", Held(models=frozenset({"sd15"})), load=9)
    assert router.choose(plain).why is Why.LOAD


def test_the_dead_are_forgotten() -> None:
    """Neither chosen, nor counted, nor known as holders; late news of them are ignored."""
    router = router_of(3)
    router.report("r1", Held(sets=frozenset({A.set_key})), load=4)
    assert router.knows(A)
    router.remove("r1")
    router.remove("r1")
    router.end("r1")
    router.begin("r1", A)
    router.report("r1", Held(sets=frozenset({A.set_key})), load=4)
    assert not router.knows(A)
    assert "r1" not in router.loads
    assert router.bound() == math.ceil(1.5 / 2)
    assert router.choose(A).name in {"r0", "r2"}


def test_who_failed_a_job_is_not_asked_again() -> None:
    """`without` is obeyed at every stage, and nobody left is None."""
    router = router_of(2)
    router.report("r0", Held(frozenset({A.set_key}), A.files, frozenset({"sd15"})))
    for wanted in (A, Wanted("sd15"), Wanted("sd15", "set b", A.files)):
        assert router.choose(wanted, without={"r0"}).name == "r1"
        assert router.choose(wanted, without={"r0", "r1"}) is None


def test_what_was_evicted_is_not_held() -> None:
    """A report replaces what was known before."""
    router = router_of(2)
    router.begin("r0", A)
    assert router.knows(A)
    router.report("r0", Held(sets=frozenset({"set b"})))
    assert not router.knows(A)
    router.end("r0")
    router.end("r0")
    assert dict(router.loads) == {"r0": 0, "r1": 0}


@pytest.mark.parametrize("factor", [0.9, -1.0, float("nan")])
def test_a_factor_below_one_is_refused(factor: float) -> None:
    """Not every job would find a place."""
    with pytest.raises(ValueError, match="factor"):
        Router(factor)
