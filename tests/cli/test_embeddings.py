"""`embeddings list` and `embeddings served`."""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files
from pathlib import Path

import torch

from sdgrpc.testing.scripted_catalog import HASH, scripted_catalog
from tests.support.loras import to_file


def test_list_says_what_each_word_is_for(run, tmp_path: Path) -> None:
    """Names, bases, vectors and hashes; against a model also why one cannot be used."""
    path = to_file(tmp_path / "sd1/face.safetensors", {"emb_params": torch.ones(3, 768)})
    (tmp_path / "broken.safetensors").write_bytes(b"nothing much")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    result = run("embeddings", "list", "--embedding-dir", tmp_path)
    assert result.exit_code == 0
    header, broken, face = [line.split() for line in result.output.splitlines()]
    assert header[:4] == ["word", "base", "vectors", "sha256"]
    assert face == ["face", "sd15", "3", sha256[:12]]
    assert broken[:2] == ["broken", "unknown"]
    packaged = files("sdgrpc") / "assets/tiny/model"
    found = run("embeddings", "list", "--embedding-dir", tmp_path, "--model", packaged, "--json")
    record = next(one for one in json.loads(found.stdout) if one["name"] == "face")
    assert (record["fits"], record["vector_count"], record["sha256"]) == (False, 3, sha256)
    assert "takes vectors of 128" in record["refusal"]
    assert run("embeddings", "list").output.strip() == "no textual inversions"


def test_served_tells_what_a_server_has(run) -> None:
    """A line each."""
    with scripted_catalog() as catalog:
        lines = run("embeddings", "served", "--server", catalog.target).output.splitlines()
    assert lines[1].split() == ["face", "sd15", "2", HASH[:12]]
