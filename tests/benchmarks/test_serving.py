"""The serving benchmark, tried with a tiny model; its numbers are not judged here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.serving.__main__ import main
from benchmarks.serving.sections import SECTIONS

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


def test_every_section_runs(tmp_path: Path) -> None:
    """Both sides draw in every section, and the file holds what was measured beside the machine."""
    path = tmp_path / "serving.json"
    options = "--tiny --rounds 1 --steps 2 --sides 64 --clients 2 --requests 4 --loras 3 --dtype float32"
    assert main([*options.split(), "--trace-requests", "5", "--json", str(path)]) == 0
    found = json.loads(path.read_text())
    assert found["machine"]["processor"]
    assert set(SECTIONS) <= set(found)
    assert found["single"]["64x64"]["ours_over_diffusers"] > 0
    assert found["single"]["64x64"]["ours_over_diffusers_float32"] > 0
    assert found["trace"]["requests"] == 4
    assert [row["next_call"] for row in found["loads"]["rows"]] == ["least_work", "least_slack", "oldest"] * 4
    assert all(row["pictures_per_minute"] > 0 for row in found["loads"]["rows"])
    assert set(found["batch"]) == {"one set", "a set each"}


def test_an_unknown_section_is_named() -> None:
    """A typing error does not run everything else first."""
    with pytest.raises(SystemExit, match="'batsh'"):
        main(["--only", "batsh"])
