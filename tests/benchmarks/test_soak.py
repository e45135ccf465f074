"""The soak in small: it runs, finds nothing, and could find something."""

from __future__ import annotations

from collections import Counter

import pytest

from benchmarks.soak.__main__ import main
from benchmarks.soak.report import Report, Sample


def test_a_short_run_finds_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of its kinds of calls, against a real server with faults."""
    monkeypatch.setattr("sys.argv", ["soak", "--requests", "60", "--clients", "8", "--tiny"])
    assert main() == 0
    output = capsys.readouterr().out
    assert "60 calls" in output
    assert "wrong pictures" in output


def report(**changes) -> Report:
    samples = [Sample(500, 1000.0, 20, 30), Sample(1000, 1001.0, 20, 30)]
    return Report(**{"calls": 1000, "ends": Counter(), "samples": samples, "exit_status": 0, **changes})


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"wrong_pictures": 1}, "wrong pictures"),
        ({"ends": Counter({("draw", "UNKNOWN"): 1})}, "unexpected ends of calls"),
        ({"exit_status": -11}, "crashes"),
        ({"fatal_lines": 1}, "crashes"),
        ({"left_jobs": 1}, "jobs left"),
        ({"left_leases": 1}, "LoRA sets left in use"),
        ({"samples": [Sample(500, 1000.0, 20, 30), Sample(1000, 1100.0, 20, 30)]}, "MiB more"),
        ({"samples": [Sample(500, 1000.0, 20, 30), Sample(1000, 1000.0, 200, 30)]}, "files and connections"),
        ({"samples": [Sample(500, 1000.0, 20, 30), Sample(1000, 1000.0, 20, 300)]}, "threads"),
    ],
)
def test_what_is_not_nothing_is_found(changes, name) -> None:
    """Each kind of fault by itself."""
    assert report().faults() == []
    (found,) = report(**changes).faults()
    assert found.startswith(name)
