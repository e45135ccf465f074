"""Links in the folders of LoRA files: a hub's snapshots and shared folders are made of them."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest
import torch

from sdgrpc.domain import LoraRef
from sdgrpc.errors import LoraNotFound
from sdgrpc.lora.describing.listing import LoraCatalog
from sdgrpc.lora.describing.verify import verify
from sdgrpc.lora.store.folders import FolderIndex
from sdgrpc.lora.store.library import LoraLibrary
from tests.support.loras import LINEAR, factors, ref, shape_of, to_file

UP, DOWN = factors(shape_of(LINEAR))
PLAIN = {f"base_model.model.{LINEAR}.lora_A.weight": DOWN, f"base_model.model.{LINEAR}.lora_B.weight": UP}
ESCAPES = [
    "../elsewhere/secret",
    "{root}/elsewhere/secret",
    "snapshot/../../elsewhere/secret",
    "..",
    "/",
    "./x",
]


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """A hub's cache: the snapshot holds links to files that are called by their hashes."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "1a2b"
    to_file(blobs / "0f3c", PLAIN)
    (blobs / "77aa").write_text(json.dumps({"lora_alpha": 6, "r": 2}))
    snapshot.mkdir(parents=True)
    (snapshot / "adapter_model.safetensors").symlink_to(Path("../../blobs/0f3c"))
    (snapshot / "adapter_config.json").symlink_to(Path("../../blobs/77aa"))
    return snapshot


def test_a_hubs_snapshot(hub: Path) -> None:
    """Its files are there with links followed, called as the snapshot calls them, with its configuration."""
    assert LoraLibrary([hub]).entries() == []
    library = LoraLibrary([hub], follow_links=True)
    assert [entry.name for entry in library.entries()] == ["adapter_model"]
    (module,) = library.find(ref(name="adapter_model")).adapter().modules
    assert module.alpha == 6.0
    assert library.find(ref(name="adapter_model.safetensors")).sha256


def test_a_snapshot_inside_of_the_folder(hub: Path) -> None:
    """Where the whole cache is the folder its links stay inside, and need no permission."""
    names = [entry.name for entry in LoraLibrary([hub.parent.parent]).entries()]
    assert names == ["snapshots/1a2b/adapter_model"]


def test_the_catalog_knows_the_configuration_too(hub: Path) -> None:
    """A page and the details read what a job reads."""
    library = LoraLibrary([hub], follow_links=True)
    (entry,) = library.entries()
    assert json.loads(library.config_of(entry)) == {"lora_alpha": 6, "r": 2}
    assert LoraLibrary([hub]).config_of(entry) == ""
    assert LoraCatalog(library)


def shared(tmp_path: Path) -> Path:
    """A folder with links to a file and to a folder elsewhere, one to nothing, one to itself, one inside."""
    folder = tmp_path / "loras"
    to_file(tmp_path / "elsewhere" / "secret.safetensors", PLAIN)
    to_file(tmp_path / "elsewhere" / "deep" / "ink.safetensors", PLAIN)
    to_file(folder / "own.safetensors", PLAIN)
    (folder / "file.safetensors").symlink_to(tmp_path / "elsewhere" / "secret.safetensors")
    (folder / "folder").symlink_to(tmp_path / "elsewhere")
    (folder / "gone.safetensors").symlink_to(tmp_path / "nowhere.safetensors")
    (folder / "round").symlink_to(folder)
    (folder / "alias.safetensors").symlink_to(folder / "own.safetensors")
    return folder


def test_links_that_are_left_out_are_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each by its path and with the setting that takes it; what stays inside is none of them."""
    index = FolderIndex([shared(tmp_path)])
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            index.files()
    logged = sorted(record.getMessage() for record in caplog.records)
    folder = tmp_path / "loras"
    outside = (
        "is left out: is a link that leads out of the folder; --follow-links (setting follow_links) takes it"
    )
    assert logged == [
        f"{folder / 'file.safetensors'} {outside}",
        f"{folder / 'folder'} {outside}",
        f"{folder / 'gone.safetensors'} is left out: is a link that leads to nothing",
    ]
    assert [name for name, _ in index.left_out()] == ["file.safetensors", "folder", "gone.safetensors"]
    with caplog.at_level(logging.WARNING):
        (folder / "new.safetensors").symlink_to(tmp_path / "elsewhere" / "secret.safetensors")
        index.files()
    assert len(caplog.records) == 4


def test_followed_links(tmp_path: Path) -> None:
    """Files and folders elsewhere are called by where the folder has them; a circle ends."""
    index = FolderIndex([shared(tmp_path)], follow_links=True)
    index.files()
    for name in ("own", "file", "folder/secret", "folder/deep/ink", "alias", "ink"):
        assert index.find(name), name
    assert index.find("round/own") == []
    assert [name for name, _ in index.left_out()] == ["gone.safetensors"]


@pytest.mark.parametrize("follow_links", [False, True])
@pytest.mark.parametrize("name", ESCAPES)
def test_a_request_never_reaches_outside(tmp_path: Path, name: str, follow_links: bool) -> None:
    """Names are keys of the index either way: no `..` and no absolute path is one."""
    library = LoraLibrary([shared(tmp_path)], follow_links=follow_links)
    with pytest.raises(LoraNotFound):
        library.find(LoraRef(1.0, 1.0, name=name.format(root=tmp_path)))


@pytest.mark.parametrize("name", ["file", "folder/secret", "secret", "folder/deep/ink"])
def test_links_are_not_followed_unasked(tmp_path: Path, name: str) -> None:
    """A request for what lies behind one finds nothing."""
    with pytest.raises(LoraNotFound):
        LoraLibrary([shared(tmp_path)]).find(ref(name=name))


def test_a_followed_link_that_goes(tmp_path: Path) -> None:
    """What it led to is not served any more."""
    folder = shared(tmp_path)
    index = FolderIndex([folder], follow_links=True)
    assert index.find("file")
    (folder / "file.safetensors").unlink()
    assert index.find("file") == []


def test_verify_lists_what_is_left_out(tmp_path: Path) -> None:
    """A row for each link, after the files; with links followed the files behind them are judged."""
    folder = shared(tmp_path)
    rows = {row.file: row.refusal for row in verify(folder)}
    assert rows["folder"].startswith("left out: it is a link that leads out of the folder; --follow-links")
    assert rows["gone.safetensors"] == "left out: it is a link that leads to nothing"
    rows = {row.file: row.refusal for row in verify(folder, follow_links=True)}
    assert rows.keys() >= {"own.safetensors", "folder/deep/ink.safetensors", "gone.safetensors"}
    assert [file for file, refusal in rows.items() if "left out" in refusal] == ["gone.safetensors"]


def test_pipes_behind_links(tmp_path: Path) -> None:
    """What is no ordinary file is none behind a link either."""
    (tmp_path / "loras").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loras" / "x.safetensors").symlink_to(tmp_path / "pipe")
    assert FolderIndex([tmp_path / "loras"], follow_links=True).find("x") == []


def test_other_weights_behind_a_link(tmp_path: Path) -> None:
    """A link that is turned to another file is another file."""
    folder = shared(tmp_path)
    library = LoraLibrary([folder], follow_links=True)
    before = library.find(ref(name="file")).sha256
    other = to_file(
        tmp_path / "elsewhere" / "other.safetensors", {k: torch.ones_like(v) for k, v in PLAIN.items()}
    )
    (folder / "file.safetensors").unlink()
    (folder / "file.safetensors").symlink_to(other)
    assert library.find(ref(name="file")).sha256 != before
