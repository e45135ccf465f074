"""Tiny models, built once for all tests of this room."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from sdgrpc.diffusion.checkpoints.loading import load
from sdgrpc.diffusion.model import Model
from tests.support.models import save_model, save_sdxl_model
from tests.support.original import save_original
from tests.support.published import ARCHITECTURES, save_published

CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an ordinary epsilon model; tests may read it and copy it."""
    return save_model(tmp_path_factory.mktemp("models") / "ordinary")


@pytest.fixture(scope="session")
def model(folder: Path) -> Model:
    """An ordinary epsilon model."""
    return load("tiny", folder, device=CPU, dtype=None)


@pytest.fixture(scope="session")
def v_model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A v-prediction model."""
    saved = save_model(tmp_path_factory.mktemp("models") / "v", prediction_type="v_prediction")
    return load("tiny-v", saved, device=CPU, dtype=None)


@pytest.fixture(scope="session")
def inpainting_model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model whose UNet takes 9 channels."""
    saved = save_model(tmp_path_factory.mktemp("models") / "nine", inpainting=True)
    return load("tiny-inpainting", saved, device=CPU, dtype=None)


@pytest.fixture(scope="session")
def sdxl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of SDXL's structure; tests may read it and copy it."""
    return save_sdxl_model(tmp_path_factory.mktemp("models") / "xl")


@pytest.fixture(scope="session")
def sdxl_model(sdxl_folder: Path) -> Model:
    """A model of SDXL's structure."""
    return load("tiny-xl", sdxl_folder, device=CPU, dtype=None)


@pytest.fixture(scope="session")
def sdxl_inpainting_model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """SDXL with a UNet of 9 channels."""
    saved = save_sdxl_model(tmp_path_factory.mktemp("models") / "xl-nine", inpainting=True)
    return load("tiny-xl-inpainting", saved, device=CPU, dtype=None)


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """The ordinary model's folder for a test that breaks it."""
    return Path(shutil.copytree(folder, tmp_path / "model"))


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[tuple[str, bool], Path]:
    """A folder of each architecture as published, ordinary and inpainting."""
    root = tmp_path_factory.mktemp("published")
    return {
        (one, nine): save_published(root / f"{one}-{nine}", one, inpainting=nine)
        for one in ARCHITECTURES
        for nine in (False, True)
    }


@pytest.fixture(scope="session")
def models(folders: Mapping[tuple[str, bool], Path]) -> Mapping[tuple[str, bool], Model]:
    """The models of these folders."""
    return {key: load("folder", folder, device=CPU, dtype=None) for key, folder in folders.items()}


@pytest.fixture
def sd15(
    models: Mapping[tuple[str, bool], Model], folders: Mapping[tuple[str, bool], Path], tmp_path: Path
) -> Path:
    """An SD1 file of a test's own, with a vocabulary beside it."""
    (tmp_path / "tokenizer").symlink_to(folders["sd15", False] / "tokenizer")
    return save_original(models["sd15", False], tmp_path / "one.safetensors")
