"""The trial of kept features: a shallow call is what it should be, and its cost is counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.deep_features import DeepCached, main, shallow_share
from sdgrpc.diffusion.model import Model


@pytest.mark.parametrize("depth", [1, 2])
@torch.inference_mode()
def test_a_shallow_call_with_its_own_features_is_the_whole_one(model: Model, depth: int) -> None:
    """At the same sample and timestep nothing is old, so the prediction is the same to the bit."""
    chance = torch.Generator().manual_seed(0)
    sample = torch.randn(2, 4, 8, 8, generator=chance)
    width = model.unet.config.cross_attention_dim
    told = {"encoder_hidden_states": torch.randn(2, 77, width, generator=chance), "return_dict": False}
    cached = DeepCached(model.unet, depth)
    whole = cached(sample, torch.tensor([500.0, 500.0]), **told)[0]
    cached.whole = False
    assert torch.equal(cached(sample, torch.tensor([500.0, 500.0]), **told)[0], whole)
    assert not torch.equal(cached(sample + 1, torch.tensor([500.0, 500.0]), **told)[0], whole)


def test_deeper_calls_cost_more(model: Model) -> None:
    """And all less than a whole one."""
    first, second = (shallow_share(model.unet, depth, 8) for depth in (1, 2))
    assert 0 < first < second < 1


def test_a_table_of_the_cheapest_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every way has a row with its cost and its distance; the full run's own steps are the nearest to it."""
    path = tmp_path / "deep.json"
    main(["--schedulers", "euler", "--steps", "6", "--prompts", "1", "--json", str(path)])
    rows = json.loads(path.read_text())["rows"]
    assert [row["cost"] for row in rows] == sorted(row["cost"] for row in rows)
    assert {row["way"].split(",")[0] for row in rows} >= {"forecast", "features", "5 plain steps"}
    assert all(row["distance"] > 0 for row in rows)
    assert "| euler | forecast, every 2 |" in capsys.readouterr().out
