"""Models' hashes: what they are of, when they are there, who waits."""

from __future__ import annotations

import hashlib
import subprocess
import threading
from pathlib import Path

import pytest

from sdgrpc.engine.hashing.files import FileHashes
from sdgrpc.engine.hashing.models import ModelHashes, WeightFiles


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


class Held(FileHashes):
    """Hashes nothing before `go` is set; notes what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.go, self.asked = threading.Event(), list[str]()

    def sha256(self, path: Path, is_unwanted=lambda: False) -> str:
        self.asked.append(path.name)
        while not self.go.wait(0.01):
            if is_unwanted():
                return ""
        return super().sha256(path)


def test_a_single_file_has_its_own_hash(tmp_path: Path) -> None:
    """As the web UI's AutoV2 is of; a VAE from elsewhere changes nothing."""
    path, vae = write(tmp_path / "a.safetensors", b"weights"), write(tmp_path / "vae.safetensors", b"vae")
    hashes = ModelHashes({"a": WeightFiles(path, (path, vae))}, FileHashes())
    assert hashes.awaited("a") == hashlib.sha256(b"weights").hexdigest()
    hashes.close()


def test_a_folder_has_the_hash_of_its_files_hashes(tmp_path: Path) -> None:
    """What `sha256sum FILES | sha256sum` says in the folder, whatever order they come in."""
    names = ["vae/model.safetensors", "unet/part-2.safetensors", "unet/part-1.safetensors"]
    paths = [write(tmp_path / "m" / name, name.encode()) for name in names]
    other = write(tmp_path / "elsewhere.safetensors", b"vae")
    hashes = ModelHashes({"m": WeightFiles(tmp_path / "m", (*paths, other))}, FileHashes())
    lines = subprocess.run(["sha256sum", *sorted(names)], cwd=tmp_path / "m", stdout=-1, check=True).stdout
    assert hashes.awaited("m") == hashlib.sha256(lines).hexdigest()
    hashes.close()


def test_nothing_is_known_before_it_is_computed(tmp_path: Path) -> None:
    """Asking does not wait; a start computes all, one after the other."""
    files = Held()
    models = {name: WeightFiles(write(tmp_path / name, name.encode())) for name in ("a", "b")}
    hashes = ModelHashes(models, files)
    assert hashes.known("a") == ""
    hashes.start()
    hashes.start()
    assert hashes.known("a") == ""
    files.go.set()
    assert hashes.awaited("b") == hashlib.sha256(b"b").hexdigest()
    assert hashes.awaited("a") == hashes.known("a") == hashlib.sha256(b"a").hexdigest()
    assert sorted(files.asked) == ["a", "b"]
    hashes.close()


def test_a_model_that_is_waited_for_goes_first(tmp_path: Path) -> None:
    """Before those that were served earlier."""
    files = Held()
    models = {name: WeightFiles(write(tmp_path / name, name.encode())) for name in "abc"}
    hashes = ModelHashes(models, files, patience=60)
    hashes.start()
    while not files.asked:
        files.go.wait(0.01)
    waiting = threading.Thread(target=hashes.awaited, args=("c",))
    waiting.start()
    while hashes._entries["c"].deadline is None:
        waiting.join(0.01)
    files.go.set()
    waiting.join()
    hashes.awaited("b")
    assert files.asked == ["a", "c", "b"]
    hashes.close()


def test_patience_ends(tmp_path: Path) -> None:
    """A picture of a slow disk's model goes without; the next does not wait again."""
    files = Held()
    hashes = ModelHashes({"a": WeightFiles(write(tmp_path / "a", b"a"))}, files, patience=0.05)
    assert hashes.awaited("a") == ""
    assert hashes.awaited("a") == ""
    hashes.close()
    assert hashes.known("a") == ""


def test_closing_ends_who_waits(tmp_path: Path) -> None:
    """And what is hashed, between two pieces."""
    hashes = ModelHashes({"a": WeightFiles(write(tmp_path / "a", b"a"))}, Held(), patience=600)
    waiting = threading.Thread(target=hashes.awaited, args=("a",))
    waiting.start()
    while hashes._entries["a"].deadline is None:
        waiting.join(0.01)
    hashes.close()
    waiting.join(60)
    assert not waiting.is_alive()
    hashes.close()


def test_what_cannot_be_read_has_no_hash(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and the others are hashed; a model that is in no file has none."""
    models = {"gone": WeightFiles(tmp_path / "gone", (tmp_path / "gone" / "x",))}
    models["a"] = WeightFiles(write(tmp_path / "a", b"a"))
    hashes = ModelHashes(models, FileHashes())
    assert hashes.awaited("gone") == ""
    assert hashes.awaited("a")
    assert hashes.awaited("in memory") == hashes.known("in memory") == ""
    assert "model gone has no hash" in caplog.text
    hashes.close()
