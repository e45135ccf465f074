"""The comparison with other tools, tried with a tiny model; its numbers are not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from benchmarks.peers import environments
from benchmarks.peers.__main__ import SIDES, main
from benchmarks.peers.environments import ENVIRONMENTS, Environment, python_of
from benchmarks.peers.measures import Cost, Extent, Measures, trace_of
from benchmarks.peers.report import ROWS, cell, table
from benchmarks.peers.sides import PeerError, computed_seconds
from benchmarks.peers.subject import VOCABULARY, tokenizer_of_clips_size
from benchmarks.peers.workers.loop import Drawing, answer, peak_memory

EXTENT = Extent(tuple(f"lora{number}" for number in range(8)), 1, 64, 2, 2, 3)


@pytest.mark.slow
def test_both_sides_fill_every_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ours in a server, diffusers with PEFT in a process: nothing is missing, the table has both."""
    path = tmp_path / "peers.json"
    options = "--tiny --rounds 1 --side 64 --steps 2 --clients 2 --requests 2"
    assert main([*options.split(), "--cache", str(tmp_path), "--json", str(path)]) == 0
    sides = json.loads(path.read_text())["sides"]
    assert set(sides) == {"ours", "peft"}
    for record in sides.values():
        assert not [key for key in record if key.endswith("failed")]
        assert set(ROWS.values()) <= record.keys()
    assert "| | ours | peft |" in capsys.readouterr().out


def test_an_unknown_peer_is_named() -> None:
    """Before anything is measured."""
    with pytest.raises(SystemExit, match=r"'openvinu'; there are ours, peft"):
        main(["--peers", "ours,openvinu"])
    assert len(SIDES) == 7


class Scripted:
    """A side that draws nothing, notes what it was asked, and fails at what is named."""

    at_once = True

    def __init__(self, fails_with: int = -1) -> None:
        self.asked: list[Drawing] = []
        self._lock = threading.Lock()
        self._most = fails_with
        self._computed = 0.0

    def load(self) -> None:
        """Nothing to load."""

    def draw(self, asked: Drawing) -> None:
        """Note it."""
        with self._lock:
            self.asked.append(asked)
        if len(asked.loras) == self._most:
            raise PeerError("three are too many")

    def memory(self) -> int:
        """Some bytes."""
        return 5

    def processor_seconds(self) -> float:
        """Two seconds more each time."""
        self._computed += 2.0
        return self._computed

    def close(self) -> None:
        """Nothing to close."""


def test_a_row_that_fails_says_why_and_the_others_go_on() -> None:
    """A peer that takes no three files has no row for them, and all rows that need none."""
    side = Scripted(fails_with=3)
    record = Measures(side, EXTENT, 0.001, lambda _: None).run()
    assert record["steps_failed"] == "three are too many"
    assert {"load_seconds", "new_set_seconds", "clients_seconds", "trace_mean_seconds"} <= record.keys()
    assert record["memory_bytes"] == 5
    assert record["new_set_processor_seconds"] == 2.0


def test_a_step_is_the_difference_of_two_pictures() -> None:
    """By the clock and by the processor."""
    assert Cost(9.0, 13.0).less(Cost(1.0, 1.0), 4) == Cost(2.0, 3.0)


def test_a_process_computes() -> None:
    """What it has computed grows; a side without a process has computed nothing."""
    assert computed_seconds(None) == 0.0
    with subprocess.Popen(
        [sys.executable, "-c", "sum(range(3_000_000)); input()"], stdin=-1, text=True
    ) as one:
        while not computed_seconds(one):
            pass
        one.kill()


def test_a_new_set_is_new() -> None:
    """No picture before the one that is timed had its files, while a known set had been drawn."""
    side = Scripted()
    measures = Measures(side, EXTENT, 0.001, lambda _: None)
    measures.load()
    measures.steps()
    before = {name for asked in side.asked for name, _ in asked.loras}
    already = len(side.asked)
    measures.sets()
    names = [asked.loras[0][0] for asked in side.asked[already:]]
    assert names == ["lora0", "lora0", "lora3", "lora0", "lora1", "lora0", "lora0", "lora0"]
    assert "lora3" not in before
    assert [asked.loras[0][1] for asked in side.asked[-2:]] == [0.5, 0.6]


def test_all_sides_get_the_same_trace() -> None:
    """It depends on its extent alone, and has requests without, with one and with two files."""
    extent = Extent(EXTENT.names, 1, 64, 2, 2, 60)
    assert trace_of(extent) == trace_of(extent)
    assert {len(asked.loras) for asked in trace_of(extent)} == {0, 1, 2}


def test_a_cell_has_the_ratio_to_ours() -> None:
    """Seconds and bytes; a row that a side does not have is a dash."""
    assert cell("step_seconds", 3.0, 1.5) == "3 s (2.00)"
    assert cell("step_seconds", 1.5, 1.5) == "1.5 s"
    assert cell("memory_bytes", 3 << 30, 1 << 30) == "3.0 GiB (3.00)"
    assert "| a step | 2 s | - |" in table({"ours": {"step_seconds": 2.0}, "sdcpp": {}})


def test_a_worker_does_what_it_is_told() -> None:
    """Drawings come as they were asked, the memory is this process'."""
    side = Scripted()
    answer(side, {"do": "draw", "loras": [["a", 0.5]], "steps": 3, "side": 64, "seed": 7})
    assert side.asked == [Drawing((("a", 0.5),), 3, 64, 7)]
    assert answer(side, {"do": "memory"})["bytes"] == peak_memory()


def test_an_environment_is_made_once_and_again_for_other_pins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An environment and its packages are asked of uv; what is there already is used."""
    commands: list[list[str]] = []

    def run(command: list[str]) -> None:
        commands.append(command)
        (tmp_path / "environments" / "sdcpp").mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr(environments, "_run", run)
    first = python_of("sdcpp", tmp_path)
    assert first == python_of("sdcpp", tmp_path)
    assert [command[1:3] for command in commands] == [["venv", "-q"], ["pip", "install"]]
    assert commands[1][-1] == ENVIRONMENTS["sdcpp"].packages[0]
    monkeypatch.setitem(ENVIRONMENTS, "sdcpp", Environment(("other==1",), sees_torch=False))
    python_of("sdcpp", tmp_path)
    assert commands[3][-1] == "other==1"


def test_the_tokenizer_is_of_clips_size() -> None:
    """So that the text encoder has the shape that other tools have built in."""
    tokenizer = tokenizer_of_clips_size()
    assert len(tokenizer) == VOCABULARY
    assert tokenizer.eos_token_id == VOCABULARY - 1
    assert len(tokenizer("a red cat").input_ids) > 4
