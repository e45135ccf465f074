"""The benchmark of LoRA sets on a tiny model: it runs, and measures what it says."""

from __future__ import annotations

import pytest
import torch

from benchmarks import tables
from benchmarks.lora_sets import measures, report
from benchmarks.lora_sets.files import STACK, write
from benchmarks.lora_sets.measures import Bench
from benchmarks.lora_sets.models import TINY, components
from benchmarks.lora_sets.sides import Theirs


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Two single files of attention and one of convolutions, for one round."""
    folder = tmp_path_factory.mktemp("loras")
    ours = components(TINY, torch.float32)
    for name, kind in (("a", STACK[0]), ("b", STACK[0]), ("c", STACK[2])):
        write(kind, ours, folder / f"{name}.safetensors", ord(name))
    return Bench(TINY, ours, Theirs(components(TINY, torch.float32), folder), folder, 1)


def test_a_miss_is_measured_on_both_sides(bench: Bench) -> None:
    """One time each, of the same weights, and a line to print."""
    row = measures.miss(bench, ["a"], ["b"])
    assert {name: len(times) for name, times in row["seconds"].items()} == {
        "ours": 1,
        "strength": 1,
        "copy": 1,
        "diffusers": 1,
    }
    assert row["bytes"] > 0
    assert "times faster" in report.miss(row)


def test_memory_is_that_of_the_weights(bench: Bench) -> None:
    """A set holds the bytes of the weights that it touches, no more."""
    row = measures.memory(bench, ["a", "c"], 4)
    assert row["set_over_weights"] == 1.0
    assert len(row["resident_mib"]) == 4
    assert "4 sets in turn" in report.memory(row)


def test_a_fuse_beside_steps_is_drawn(bench: Bench) -> None:
    """The timeline has the fuse once and the steps around it."""
    row = measures.hidden(bench, ["a"], ["c"])
    drawn = report.hidden(row).splitlines()
    assert [line.split()[0] for line in drawn].count("fuse") == 1
    assert len(drawn) - 1 == len(row["events"]) >= 5


def test_times_alternate_and_have_medians() -> None:
    """Every work once a round, the first round left out."""
    order: list[str] = []
    times = tables.alternate({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2)
    assert order == ["a", "b"] * 3
    assert [len(values) for values in times.values()] == [2, 2]
    assert tables.medians({"a": [3.0, 1.0, 2.0]}) == {"a": 2.0}
