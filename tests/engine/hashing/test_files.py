"""Hashes of files: computed once, kept as long as the file stays the same."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from sdgrpc.engine.hashing import files
from sdgrpc.engine.hashing.files import NAME, FileHashes


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(os.urandom(100_000))
    return path


def of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_hash_is_that_of_the_bytes(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In pieces of any size."""
    assert FileHashes().sha256(weights) == of(weights)
    monkeypatch.setattr(files, "PIECE", 999)
    assert FileHashes().sha256(weights) == of(weights)


def test_a_kept_hash_is_not_computed_again(weights: Path, tmp_path: Path) -> None:
    """Another process with the folder believes what stands there, for that very file."""
    folder = tmp_path / "made" / "cache"
    assert FileHashes(folder).sha256(weights) == of(weights)
    kept = json.loads((folder / NAME).read_text())
    (entry,) = kept.values()
    entry["sha256"] = "a" * 64
    (folder / NAME).write_text(json.dumps(kept))
    assert FileHashes(folder).sha256(weights) == "a" * 64
    assert [path.name for path in folder.iterdir()] == [NAME]


@pytest.mark.parametrize("change", ["size", "time", "inode"])
def test_another_file_is_hashed_anew(weights: Path, tmp_path: Path, change: str) -> None:
    """Of another size, time or inode."""
    hashes = FileHashes(tmp_path / "cache")
    hashes.sha256(weights)
    stat, content = weights.stat(), weights.read_bytes()
    if change == "size":
        weights.write_bytes(content[:-1])
        os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    elif change == "time":
        weights.write_bytes(content[::-1])
        os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    else:
        other = weights.with_suffix(".new")
        other.write_bytes(content[::-1])
        os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        other.replace(weights)
    assert hashes.sha256(weights) == of(weights) != hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"x": 1}', "\0"])
def test_a_broken_cache_counts_as_empty(weights: Path, tmp_path: Path, text: str) -> None:
    """And is written anew."""
    (tmp_path / NAME).write_text(text)
    assert FileHashes(tmp_path).sha256(weights) == of(weights)
    assert of(weights) in (tmp_path / NAME).read_text()


def test_a_cache_that_cannot_be_written_costs_only_time(weights: Path, tmp_path: Path) -> None:
    """As where its folder is a file."""
    (tmp_path / "cache").write_text("")
    assert FileHashes(tmp_path / "cache").sha256(weights) == of(weights)


def test_entries_of_others_stay(weights: Path, tmp_path: Path) -> None:
    """Two servers can share a folder."""
    other = weights.with_name("other.safetensors")
    other.write_bytes(b"other")
    one, two = FileHashes(tmp_path), FileHashes(tmp_path)
    one.sha256(weights)
    two.sha256(other)
    assert len(json.loads((tmp_path / NAME).read_text())) == 2


def test_nobody_waits_for_what_is_unwanted(weights: Path, tmp_path: Path) -> None:
    """It ends between two pieces, and keeps nothing."""
    assert FileHashes(tmp_path).sha256(weights, lambda: True) == ""
    assert not (tmp_path / NAME).exists()


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    """Instead of waiting for somebody to write."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="no regular file"):
        FileHashes().sha256(tmp_path / "pipe")
