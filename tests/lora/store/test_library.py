"""Finding LoRA files by name, hash and content."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sdgrpc.domain import LoraRef
from sdgrpc.errors import LoraMalformed, LoraNotFound, LoraUnsupported
from sdgrpc.lora.files.reading import DEFAULT_LIMITS, hashes
from sdgrpc.lora.store.library import LoraLibrary
from tests.support.loras import LINEAR, kohya_file, to_bytes, to_file

TENSORS = kohya_file(LINEAR)


def named(name: str) -> LoraRef:
    return LoraRef(1.0, 1.0, name=name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    to_file(tmp_path / "styles" / "ink.safetensors", TENSORS)
    to_file(tmp_path / "styles" / "oil.safetensors", kohya_file(LINEAR, seed=2))
    to_file(tmp_path / "places" / "oil.safetensors", kohya_file(LINEAR, seed=3))
    return tmp_path


def test_entries_are_the_safetensors_files(folder: Path) -> None:
    """Names as requests use them, with path and size; pickles are none of them."""
    (folder / "old.ckpt").write_bytes(b"x")
    entries = LoraLibrary([folder]).entries()
    assert [entry.name for entry in entries] == ["places/oil", "styles/ink", "styles/oil"]
    assert entries[1].path == folder / "styles" / "ink.safetensors"
    assert entries[1].size == entries[1].path.stat().st_size


def test_a_file_is_found_by_name_and_hash(folder: Path) -> None:
    """Both give the file with its hash, and its adapter."""
    library = LoraLibrary([folder])
    found = library.find(named("ink"))
    digest = hashes(folder / "styles" / "ink.safetensors").sha256
    assert (found.name, found.sha256) == ("styles/ink", digest)
    assert found.adapter().sha256 == digest
    assert library.find(LoraRef(1.0, 1.0, sha256=digest)).name == "styles/ink"
    assert library.find(LoraRef(1.0, 1.0, sha256=digest.upper())).name == "styles/ink"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("oil", r"several LoRAs are called 'oil': 'places/oil', 'styles/oil'; give the whole name"),
        ("inc", r"no LoRA 'inc' here; did you mean 'styles/ink'\?"),
        ("zzzzzz", "no LoRA 'zzzzzz' here; there are 3 others"),
        ("../styles/ink", r"did you mean 'styles/ink'\?"),
    ],
)
def test_what_is_not_found_is_said_with_what_is_near(folder: Path, name: str, words: str) -> None:
    """A wrong name is answered with near ones."""
    with pytest.raises(LoraNotFound, match=words) as caught:
        LoraLibrary([folder]).find(named(name))
    assert caught.value.name == name


def test_an_unknown_hash_is_not_found(folder: Path) -> None:
    """The hash is the name of what is missing."""
    with pytest.raises(LoraNotFound, match="SHA-256"):
        LoraLibrary([folder]).find(LoraRef(1.0, 1.0, sha256="00" * 32))


def test_a_pickle_is_found_and_refused(folder: Path) -> None:
    """Asking for one says why it is not read."""
    torch.save(TENSORS, folder / "old.pt")
    file = LoraLibrary([folder]).find(named("old.pt"))
    with pytest.raises(LoraUnsupported, match="pickle"):
        file.adapter()


def test_files_inside_requests(folder: Path) -> None:
    """They are taken only where that is allowed, and are named by their hash."""
    content = to_bytes(TENSORS)
    ref = LoraRef(1.0, 1.0, content=content)
    with pytest.raises(LoraUnsupported, match="takes no files inside requests"):
        LoraLibrary([folder]).find(ref)
    file = LoraLibrary([folder], allow_inline=True).find(ref)
    assert file.adapter().modules[0].rank == 2
    assert file.name == "(inline)"


def test_limits_hold_for_files_and_content(folder: Path) -> None:
    """A file over the operator's limit is malformed."""
    library = LoraLibrary([folder], allow_inline=True, limits=replace(DEFAULT_LIMITS, max_tensors=2))
    for ref in (named("ink"), LoraRef(1.0, 1.0, content=to_bytes(TENSORS))):
        with pytest.raises(LoraMalformed, match="at most 2"):
            library.find(ref).adapter()
