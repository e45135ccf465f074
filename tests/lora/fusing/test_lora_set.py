"""A set is made once: its members sorted, its name computed."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from types import FrameType

import pytest

from sdgrpc.lora.fusing import lora_set
from sdgrpc.lora.fusing.cache import FusedSets, Lease
from sdgrpc.lora.fusing.lora_set import LoraSet
from tests.support.loras import CROSS, LINEAR, kohya_file, lora_file, ref, small_components

FILES = [lora_file(kohya_file(LINEAR, CROSS, seed=n), f"l{n}") for n in (1, 2, 3)]
ASKED = [(file, ref(0.3 * (at + 1))) for at, file in enumerate(FILES)]


def test_every_order_is_the_same_set() -> None:
    """The members are, and their name; what was asked for keeps its order."""
    sets = [LoraSet.of(order) for order in itertools.permutations(ASKED)]
    assert len({one.set_id for one in sets}) == 1
    assert len({tuple(member.key for member in one.members) for one in sets}) == 1
    assert len({tuple(member.file.name for member in one.asked) for one in sets}) == 6
    assert sets[0].residents() == sets[-1].residents()


def test_what_has_no_strength_is_no_member() -> None:
    """It is asked for all the same; a set of nothing has no name."""
    empty = LoraSet.of([(FILES[0], ref(0.0)), (FILES[1], ref(-0.0))])
    assert (empty.set_id, empty.members, len(empty.asked)) == ("", (), 2)
    one = LoraSet.of([(FILES[0], ref(0.0)), ASKED[1]])
    assert [member.file.name for member in one.members] == ["l2"]
    assert one.set_id == LoraSet.of([ASKED[1]]).set_id


def test_members_are_sorted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a set that is fused as for one that is there: once in an acquire, and named once."""
    sorts: list[int] = []

    def counted(items, *, key):
        found = sorted(items, key=key)
        sorts.append(len(found))
        return found

    monkeypatch.setattr(lora_set, "sorted", counted, raising=False)
    monkeypatch.setattr("sdgrpc.lora.fusing.maker.sorted", forbidden, raising=False)
    monkeypatch.setattr("sdgrpc.lora.fusing.cache.sorted", forbidden, raising=False)
    sets = FusedSets(small_components(), base="small", capacity_bytes=1 << 30)
    for is_cached in (False, True):
        sorts.clear()
        assert sets.acquire(ASKED).cached is is_cached
        assert sorts == [3]


def forbidden(*_: object, **__: object) -> object:
    raise AssertionError("members are sorted in lora_set alone")


def trail(work: Callable[[], Lease]) -> list[str]:
    """Return the files of the package that calls lead through on this thread, in their order."""
    found: list[str] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        path = frame.f_code.co_filename
        if event == "call" and "/sdgrpc/" in path:
            found.append(path.rpartition("/")[2])

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return found


def test_a_set_that_is_there_is_a_short_trip() -> None:
    """Through the cache, the set, its files' names, their reports, what they were made for, and the lease."""
    sets = FusedSets(small_components(), base="small", capacity_bytes=1 << 30)
    sets.acquire(ASKED)
    files = trail(lambda: sets.acquire(ASKED))
    assert set(files) - {"made_for.py"} == {"cache.py", "lora_set.py", "contents.py", "maker.py", "lease.py"}
    assert files.count("maker.py") == files.count("lease.py") == 1


def test_files_that_are_known_are_not_placed_again() -> None:
    """A new set of them is only planned, fused and reported: nothing is read, judged or looked up by name."""
    sets = FusedSets(small_components(), base="small", capacity_bytes=1 << 30)
    sets.acquire(ASKED).release()
    files = set(trail(lambda: sets.acquire([(file, ref(0.11)) for file in FILES])))
    assert not files & {
        "reading.py",
        "keys.py",
        "detect.py",
        "smaller.py",
        "module_names.py",
        "key_endings.py",
    }
    assert {"maker.py", "fuser.py", "reports.py"} <= files
