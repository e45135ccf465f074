"""Models by a hub's name, out of a cache."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from sdgrpc.diffusion.checkpoints import hub
from sdgrpc.diffusion.checkpoints.loading import load
from sdgrpc.diffusion.model import Model
from sdgrpc.errors import ModelError
from tests.support.tasks import draw, task

CPU = torch.device("cpu")


@pytest.fixture
def cache(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with the tiny model as `someone/tiny`, and no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--someone--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("1" * 40)
    shutil.copytree(folder, repository / "snapshots" / ("1" * 40))
    return tmp_path


@pytest.mark.usefixtures("cache")
def test_a_cached_model_loads_offline(model: Model) -> None:
    """The name is enough, and the model is the folder's."""
    loaded = load("tiny", "someone/tiny", device=CPU, dtype=None)
    assert torch.equal(draw(loaded, task()), draw(model, task()))


@pytest.mark.usefixtures("cache")
def test_what_is_not_cached_is_named() -> None:
    """The sentence says that it is neither here nor there, and what to do."""
    with pytest.raises(ModelError, match=r"someone/else is no folder or file here, nor .* HF_HOME"):
        load("else", "someone/else", device=CPU, dtype=None)


@pytest.mark.usefixtures("cache")
def test_a_folder_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What exists here is never looked for elsewhere."""
    (tmp_path / "someone" / "tiny").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"has no model_index\.json"):
        load("tiny", "someone/tiny", device=CPU, dtype=None)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("someone/tiny-1.5", True),
        ("tiny", False),
        ("./tiny", False),
        ("../tiny", False),
        ("/models/tiny", False),
        ("models/deep/tiny", False),
        ("~/tiny", False),
    ],
)
def test_what_is_a_name(source: str, expected: bool) -> None:
    """Paths are not asked for over the network."""
    assert hub.is_name(source) is expected


def test_only_what_is_loaded_is_fetched(folder: Path, sdxl_folder: Path) -> None:
    """Every file of a folder matches, and pickles, variants and single files do not."""
    from huggingface_hub.utils import filter_repo_objects  # type: ignore[attr-defined]

    for source in (folder, sdxl_folder):
        wanted = sorted(str(path.relative_to(source)) for path in source.rglob("*") if path.is_file())
        assert sorted(filter_repo_objects(wanted, allow_patterns=list(hub.FILES))) == wanted
    others = [
        "v1-5-pruned.safetensors",
        "unet/diffusion_pytorch_model.bin",
        "safety_checker/model.safetensors",
    ]
    others += ["unet/diffusion_pytorch_model.fp16.safetensors", "text_encoder/model.fp16.safetensors"]
    assert list(filter_repo_objects(others, allow_patterns=list(hub.FILES))) == []


def test_half_precision_is_fetched_where_there_is_no_other(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repository whose UNet exists only as `*.fp16.safetensors` gets that file, and nothing twice."""
    remote, local = Path(shutil.copytree(folder, tmp_path / "remote")), tmp_path / "local"
    whole = remote / "unet/diffusion_pytorch_model.safetensors"
    whole.rename(whole.with_suffix(".fp16.safetensors"))
    shutil.copy(remote / "vae/diffusion_pytorch_model.safetensors", remote / "vae/more.fp16.safetensors")

    def download(_name: str, *, allow_patterns: list[str]) -> str:
        from huggingface_hub.utils import filter_repo_objects  # type: ignore[attr-defined]

        names = [str(path.relative_to(remote)) for path in remote.rglob("*") if path.is_file()]
        for name in filter_repo_objects(names, allow_patterns=allow_patterns):
            (local / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(remote / name, local / name)
        return str(local)

    monkeypatch.setattr(hub, "snapshot_download", download)
    assert hub.fetch("someone/half") == local
    assert [path.name for path in local.rglob("*.fp16.safetensors")] == [
        "diffusion_pytorch_model.fp16.safetensors"
    ]
    assert load("half", local, device=CPU, dtype=None).info.name == "half"
