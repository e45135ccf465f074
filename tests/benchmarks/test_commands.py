"""The benchmarks as commands: each explains itself, and none writes over what was measured by a trial."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.serving.__main__ import main as serving
from benchmarks.tables import ROOT, results_path

COMMANDS = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
    for path in (ROOT / "benchmarks").rglob("*.py")
    if '__name__ == "__main__"' in path.read_text()
    and path.name != "as_it_comes.py"  # run by another
    and path.parent.name != "workers"  # each in an environment of its own
)


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command: str) -> None:
    """`--help` answers and measures nothing."""
    done = subprocess.run(
        [sys.executable, "-m", command, "--help"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.startswith("usage:")


def test_a_trial_leaves_the_results(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without --json a run with a tiny model goes elsewhere than the committed figures."""
    committed = results_path("serving").read_bytes()
    assert results_path("serving", tiny=True).is_relative_to(ROOT / "build")
    monkeypatch.setattr("benchmarks.tables.ROOT", tmp_path)
    options = "--tiny --only batch --rounds 1 --steps 1 --sides 64 --clients 2 --requests 2 --loras 2"
    assert serving(options.split()) == 0
    assert (tmp_path / "build/benchmarks/serving-tiny.json").is_file()
    assert (ROOT / "benchmarks/results/serving.json").read_bytes() == committed
