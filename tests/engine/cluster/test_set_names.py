"""What a job is quick with, and under which names replicas have it."""

from __future__ import annotations

import pytest

from sdgrpc.domain import LoraRef, ResidentSet
from sdgrpc.engine.cluster import set_names
from sdgrpc.engine.cluster.routing.holdings import Wanted
from sdgrpc.engine.cluster.set_names import SetNames, wanted_by

A, B = LoraRef(0.5, name="a"), LoraRef(1.0, name="b")


def resident(set_id: str) -> ResidentSet:
    return ResidentSet(set_id, "m", 10, in_use=False, loras=())


def test_a_set_is_the_same_in_any_order() -> None:
    """And another one with other strengths, at other steps, or of another model."""
    assert wanted_by("m", [A, B]) == wanted_by("m", [B, A])
    keys = [
        wanted_by(model, [lora]).set_key
        for model, lora in [
            ("m", A),
            ("m", LoraRef(0.25, name="a")),
            ("m", LoraRef(0.5, name="a", start=0.5)),
            ("m", LoraRef(0.5, name="b")),
            ("n", A),
        ]
    ]
    assert len(set(keys)) == 5
    assert wanted_by("m", []) == Wanted("m")


def test_a_file_of_a_request_goes_by_its_hash() -> None:
    """The same bytes are the same set, whatever they are called."""
    one, other = LoraRef(content=b"x"), LoraRef(content=b"y")
    assert wanted_by("m", [one]) == wanted_by("m", [LoraRef(content=b"x")])
    assert wanted_by("m", [one]) != wanted_by("m", [other])


def test_reports_speak_of_sets_by_id() -> None:
    """A set that was learned is found in a replica's report, with its files and model."""
    names, wanted = SetNames(), wanted_by("m", [A])
    names.learn(wanted, "id-1")
    held = names.held("r", [resident("id-1"), resident("id-2")], ())
    assert (held.sets, held.files, held.models) == ({wanted.set_key}, {"a"}, {"m"})
    assert not names.held("r", [resident("id-2")], ()).sets


def test_what_is_being_fused_counts_as_held() -> None:
    """From the moment its job is on the replica, and no longer once the job has left without it."""
    names, wanted = SetNames(), wanted_by("m", [A])
    names.begin("r", wanted)
    assert names.held("r", (), ()).sets == {wanted.set_key}
    assert not names.held("s", (), ()).sets
    names.end("r", wanted)
    assert not names.held("r", (), ()).sets


def test_names_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those learned first are forgotten."""
    monkeypatch.setattr(set_names, "MOST_SETS", 2)
    names, loras = SetNames(), [LoraRef(name=name) for name in "abc"]
    for lora in loras:
        names.learn(wanted_by("m", [lora]), f"id-{lora.name}")
    held = names.held("r", [resident(f"id-{name}") for name in "abc"], ())
    assert held.files == {"b", "c"}
