"""A tiny model for what is measured."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sdgrpc.diffusion.checkpoints.loading import load
from sdgrpc.diffusion.model import Model
from tests.support.models import save_model


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """An ordinary epsilon model."""
    folder: Path = save_model(tmp_path_factory.mktemp("models") / "ordinary")
    return load("tiny", folder, device=torch.device("cpu"), dtype=None)
