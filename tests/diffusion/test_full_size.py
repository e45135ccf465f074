"""Stable Diffusion 1.5 at its real size, with random weights made on the spot."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sdgrpc.diffusion.checkpoints.loading import load
from sdgrpc.domain import Scheduler
from tests.support.full_size import save_full_size, save_full_size_file
from tests.support.oracle import diffusers_latents, relative_difference
from tests.support.tasks import draw, task

CPU = torch.device("cpu")
# Of the model's own bytes. What is read twice, or converted as a whole, takes 1.5 and more.
PEAK = 1.15


def resident(name: str) -> int:
    """A figure of this process in bytes: VmRSS is what it holds now, VmHWM the most since `forget_peak`."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def forget_peak() -> None:
    """Let VmHWM begin at what is held now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that is gone afterwards: pytest would keep four gigabytes of the last three runs each."""
    with tempfile.TemporaryDirectory() as scratch:
        yield Path(scratch)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(os.environ.get("SDGRPC_REQUIRE_ALL") != "1", reason="runs minutes")
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_both_layouts_load_within_their_size_and_draw_what_diffusers_draws(place: Path) -> None:
    """Float16 files in float32: the same weights and latents, and diffusers' latents within 0.1 %."""
    folder = save_full_size(place / "folder", torch.float16)
    single = save_full_size_file(folder, place / "one.safetensors")
    asked = task(steps=2, width=64, height=64, scheduler=Scheduler.EULER)
    drawn = []
    for source in (folder, single):
        before = resident("VmRSS")
        forget_peak()
        model = load("full", source, device=CPU, dtype=torch.float32, tokenizer=folder / "tokenizer")
        networks = (model.vae, *model.lora_components().values())
        size = sum(one.nbytes for network in networks for one in network.parameters())
        assert size > 3 << 30
        assert resident("VmHWM") - before <= PEAK * size
        saved = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")  # mapped, not read
        assert all(torch.equal(one, saved[name].float()) for name, one in model.unet.state_dict().items())
        drawn.append(draw(model, asked))
        expected = diffusers_latents(model, asked) if source == single else None
        del model, networks
    assert torch.equal(*drawn)
    assert expected is not None
    assert relative_difference(drawn[0], expected) <= 1e-3
