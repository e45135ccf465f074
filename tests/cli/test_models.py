"""`models list`."""

from __future__ import annotations

import json
from pathlib import Path


def test_embedded_model_says_what_it_can_draw(run) -> None:
    """The packaged model is described by its card: defaults, and the words that it knows."""
    (row,) = json.loads(run("models", "list", "--json").output)
    assert (row["name"], row["default_width"], row["default_height"]) == ("embedded", 128, 128)
    for word in ("circle", "star", "background"):
        assert word in row["description"]
    table = run("models", "list").output
    assert "128x128" in table
    assert "circle" in table


def test_other_folders(run, tmp_path: Path) -> None:
    """A folder without a card is listed with its pipeline; one without a model is an error."""
    (tmp_path / "mine").mkdir()
    assert "model_index.json is missing" in run("models", "list", "--model", "mine").stderr
    (tmp_path / "mine/model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    result = run("models", "list", "--json", "--model", "a=mine", "--model", "embedded")
    assert [row["name"] for row in json.loads(result.output)] == ["a", "embedded"]
    assert json.loads(result.output)[0] == {
        "name": "a",
        "source": "mine",
        "pipeline": "StableDiffusionPipeline",
    }
    (tmp_path / "mine/sdgrpc.json").write_text("{")
    broken = run("models", "list", "--model", "mine")
    assert (broken.exit_code, broken.stderr.startswith("error: mine: its JSON cannot be read")) == (1, True)


def test_single_files(run, tmp_path: Path) -> None:
    """A checkpoint file is listed with the card beside it, without opening the file."""
    (tmp_path / "photo.safetensors").write_bytes(b"")
    (tmp_path / "photo.sdgrpc.json").write_text('{"title": "Photo"}')
    (row,) = json.loads(run("models", "list", "--json", "--model", "photo.safetensors").output)
    assert (row["name"], row["pipeline"], row["title"]) == ("photo", "single file", "Photo")


def test_hub_names(run, tmp_path: Path, monkeypatch) -> None:
    """A hub's model is described by what is in the cache; one that is not there yet is listed as that."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    (row,) = json.loads(run("models", "list", "--json", "--model", "owner/name").output)
    assert row == {"name": "name", "source": "owner/name", "pipeline": "on the hub, not in its cache yet"}
    repository = tmp_path / "models--owner--name"
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("abc")
    (snapshot / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    (row,) = json.loads(run("models", "list", "--json", "--model", "owner/name").output)
    assert row["pipeline"] == "StableDiffusionPipeline"


def test_settings_file(run, tmp_path: Path) -> None:
    """The models of a settings file are listed, and a wrong file is named."""
    (tmp_path / "server.toml").write_text('model = ["first=embedded"]')
    assert json.loads(run("models", "list", "--json", "--config", "server.toml").output)[0]["name"] == "first"
    assert run("models", "list", "--config", "none.toml").stderr.startswith("error: none.toml")
