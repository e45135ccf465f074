"""`--dry-run`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from sdgrpc.cli.drawing.plan import print_plan
from sdgrpc.client import Accepted, Plan, Sampling, Scheduler, SecondPass, SigmaSpacing
from sdgrpc.testing.scripted_catalog import HASH, scripted_catalog
from sdgrpc.v1 import catalog_pb2 as pb

LINES = """\
model     embedded (in memory)
pictures  1 of 128x128, seed 7
steps     20 of 20, 11 ask the model, 8 are guided
sampling  euler, guidance 2
loras     ink at 0.8 (text encoder 0.5), 0123456789ab
set       0123456789ab, to be fused
time      waits 1.5 s, draws for 2.00 s
memory    3.0 MiB more than is used now
warning   LoRA ink: made for 4 steps
warning   image: odd
"""


def test_a_plan_is_lines_and_nothing_is_drawn(run, tmp_path: Path) -> None:
    """What a job would do; no file is written, and the request is the one that would draw."""
    with scripted_catalog() as catalog:
        result = run("generate", "a star", "--dry-run", "--steps", 20, "--server", catalog.target)
    assert (result.exit_code, result.stdout) == (0, LINES)
    assert list(tmp_path.iterdir()) == []
    (asked,) = catalog.asked
    assert isinstance(asked, pb.PlanJobRequest)
    assert (asked.generate.prompt, asked.generate.sampling.steps) == ("a star", 20)


def test_both_passes_are_told(capsys) -> None:
    """The first is whole; of the second's schedule the share that its strength says."""
    sampling = Sampling(20, 2.0, Scheduler.EULER, SigmaSpacing.DEFAULT, 7)
    second = SecondPass(width=192, height=96, strength=0.6, steps=10)
    accepted = Accepted("id", 0, sampling, 128, 64, "embedded", 26, second_pass=second)
    plan = Plan(accepted, 26, 26, (), "", False, True, 0.0, None, None, 0)
    print_plan(plan, as_json=False)
    assert "steps     20, then 6 of 10 at 192x96" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["transform", "inpaint"])
def test_plans_of_pictures_as_json(run, tmp_path: Path, command: str) -> None:
    """The words are the contract's."""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    masks = ["--mask", "a.png"] if command == "inpaint" else []
    with scripted_catalog() as catalog:
        result = run(
            command, "a star", "--image", "a.png", *masks, "--dry-run", "--json", "--server", catalog.target
        )
    plan = json.loads(result.stdout)
    assert (plan["unet_steps"], plan["lora_set_id"], plan["loras"][0]["name"]) == (11, HASH, "ink")
    assert plan["accepted"]["sampling"]["scheduler"] == "euler"
    assert plan["estimated_decoding_seconds"] is None
    assert catalog.asked[0].WhichOneof("request") == command
