"""Models on a GPU. Without one these tests are skipped; SDGRPC_TEST_DEVICE=cpu tries them on the CPU."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks.lora_sets.files import CONVOLUTIONS, SINGLE, Kind, write
from sdgrpc.diffusion.checkpoints.loading import load
from sdgrpc.diffusion.model import Model
from sdgrpc.embedded import EMBEDDED
from tests.support.models import save_model, save_sdxl_model

LORAS = (SINGLE, Kind("convolutions", 4, CONVOLUTIONS))


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The GPU."""
    asked = os.environ.get("SDGRPC_TEST_DEVICE", "cuda")
    if asked == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device(asked)


@pytest.fixture
def exact() -> Iterator[None]:
    """Convolutions in full float32 instead of TF32, so that they can be compared with the CPU's."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture
def embedded(device: torch.device) -> Model:
    """The embedded model, whose pictures mean something, in float32."""
    return load("tiny", EMBEDDED, device=device, dtype=torch.float32)


@pytest.fixture(params=["sd15", "sdxl"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder with a tiny model of each structure in `model`, and with LoRA files."""
    save = save_sdxl_model if request.param == "sdxl" else save_model
    model = load("tiny", save(tmp_path / "model"), device=torch.device("cpu"), dtype=torch.float32)
    for seed, kind in enumerate(LORAS):
        write(kind, model.lora_components(), tmp_path / f"lora{seed}.safetensors", seed)
    return tmp_path
