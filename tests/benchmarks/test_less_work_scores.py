"""The scores of pictures drawn by less work: what is judged is what the service draws."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import less_work_scores
from benchmarks.less_work_scores import WAYS, drawn, main
from sdgrpc.diffusion.checkpoints.loading import load
from sdgrpc.diffusion.pictures.autoencoder import decode
from sdgrpc.domain import Scheduler
from sdgrpc.embedded import EMBEDDED
from tests.support.tasks import draw, task
from tools.tiny_model.models import GUIDANCE


@torch.inference_mode()
def test_pictures_side_by_side_are_those_of_one_job_each() -> None:
    """With forecasts and an interval, within the tolerance of batching."""
    model = load("tiny", EMBEDDED, device=torch.device("cpu"), dtype=torch.float32)
    prompts = ["a red star on a blue background", "a green heart on a pink background"]
    pictures = drawn(model, Scheduler.EULER, prompts, WAYS["both, every 2"] | {"steps": 12})
    for seed, prompt in enumerate(prompts):
        asked = task(
            prompt=prompt,
            negative_prompt="",
            scheduler=Scheduler.EULER,
            seed=seed,
            width=128,
            height=128,
            guidance_scale=GUIDANCE,
            **{**WAYS["both, every 2"], "steps": 12},
        )
        alone = decode(model, draw(model, asked))[0]
        difference = pictures[seed].astype(int) - np.frombuffer(alone.data, np.uint8).reshape(128, 128, 3)
        assert abs(difference).max() <= 2


def test_the_judge_is_trained_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way has its shares from 0 to 1; a second run finds the judge in its folder."""
    monkeypatch.setattr(less_work_scores, "WAYS", {"all calls": {"steps": 2}, "three": {"steps": 3}})
    path = tmp_path / "scores.json"
    options = ["--prompts", "2", "--schedulers", "euler", "--minutes", "0.01", "--judge", str(tmp_path)]
    main([*options, "--json", str(path)])
    judge = (tmp_path / "classifier.pt").read_bytes()
    main([*options, "--json", str(path)])
    found = json.loads(path.read_text())
    assert [row["way"] for row in found["rows"]] == ["all calls", "three"]
    assert all(0 <= row[name] <= 1 for row in found["rows"] for name in ("shape", "fill", "background"))
    assert (tmp_path / "classifier.pt").read_bytes() == judge
