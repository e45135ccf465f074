"""Hashing, reading and parsing LoRA files, and their configurations."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from sdgrpc.domain import LoraRef
from sdgrpc.errors import LoraMalformed, LoraNotFound
from sdgrpc.lora.dialects import adapt
from sdgrpc.lora.store import contents
from sdgrpc.lora.store.library import LoraFile, LoraLibrary
from tests.support.loras import LINEAR, kohya_file, to_file

TENSORS = kohya_file(LINEAR)


def named(name: str) -> LoraRef:
    return LoraRef(1.0, 1.0, name=name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    to_file(tmp_path / "styles" / "ink.safetensors", TENSORS)
    to_file(tmp_path / "styles" / "oil.safetensors", kohya_file(LINEAR, seed=2))
    return tmp_path


def test_a_file_is_parsed_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same content is read once, however often and by however many threads it is wanted."""
    parsed: list[str] = []
    adapt = contents.adapt_own
    monkeypatch.setattr(
        contents, "adapt_own", lambda file, config: (parsed.append(file.name), adapt(file, config))[1]
    )
    library = LoraLibrary([folder])
    barrier = threading.Barrier(4)

    def want() -> None:
        barrier.wait()
        library.find(named("ink")).adapter()

    threads = [threading.Thread(target=want) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert library.find(named("ink")).adapter() is library.find(named("ink")).adapter()
    assert parsed == ["styles/ink"]


def test_a_peft_configuration_beside_a_file_gives_its_alpha(tmp_path: Path) -> None:
    """`adapter_config.json` is part of the content: with it, or with another, it is another LoRA."""
    prefix = "base_model.model.a.lora"
    tensors = {f"{prefix}_A.weight": torch.ones(4, 2), f"{prefix}_B.weight": torch.ones(3, 4)}
    to_file(tmp_path / "adapter_model.safetensors", tensors)
    library = LoraLibrary([tmp_path])
    bare = library.find(named("adapter_model"))
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "lora_alpha": 8, "r": 4}')
    configured = library.find(named("adapter_model"))
    assert bare.sha256 == configured.sha256
    assert bare.identity != configured.identity
    assert bare.adapter().modules[0].alpha is None
    assert configured.adapter().modules[0].alpha == 8.0
    (tmp_path / "adapter_config.json").write_bytes(b"\xff not json")
    assert library.find(named("adapter_model")).identity == bare.identity


def test_parsed_files_are_bounded_in_bytes(folder: Path) -> None:
    """Beyond the bound the one used longest ago is dropped, never the last."""
    library = LoraLibrary([folder], cache_bytes=1)
    ink = library.find(named("ink"))
    first = ink.adapter()
    assert ink.adapter() is first
    library.find(named("styles/oil")).adapter()
    assert ink.adapter() is not first


def forgetful(folder: Path) -> tuple[LoraLibrary, LoraFile]:
    """A library that keeps one file, which is not the one that was found first."""
    library = LoraLibrary([folder], cache_bytes=1)
    found = library.find(named("ink"))
    library.find(named("styles/oil"))
    return library, found


def test_a_file_that_is_swapped_is_never_half_old(folder: Path) -> None:
    """What was found is what is used: the content read then, or a refusal; found again, it is the new one."""
    keeping = LoraLibrary([folder])
    kept = keeping.find(named("ink"))
    library, before = forgetful(folder)
    to_file(folder / "styles" / "ink.safetensors", kohya_file(LINEAR, rank=4))
    assert kept.adapter().sha256 == kept.sha256
    assert kept.adapter().modules[0].rank == 2
    with pytest.raises(LoraMalformed, match="was changed after the request named it"):
        before.adapter()
    for again in (keeping.find(named("ink")), library.find(named("ink"))):
        assert again.sha256 != before.sha256
        assert again.adapter().modules[0].rank == 4


def test_a_file_that_is_cut_off_is_named(folder: Path) -> None:
    """A truncated file in the folder is malformed, with its name."""
    path = folder / "styles" / "ink.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(LoraMalformed, match=r"'styles/ink'.*truncated"):
        LoraLibrary([folder]).find(named("ink")).adapter()


def test_a_file_that_vanished_is_named(folder: Path) -> None:
    """Between finding and reading a file may go."""
    _, file = forgetful(folder)
    (folder / "styles" / "ink.safetensors").unlink()
    with pytest.raises(LoraMalformed, match="cannot be read: No such file"):
        file.adapter()


def test_a_file_that_cannot_be_opened_is_not_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that goes just after the folder was searched, say."""
    read = contents.reading.read

    def gone(source: Path, *rest: object) -> object:
        source.unlink()
        return read(source, *rest)

    monkeypatch.setattr(contents.reading, "read", gone)
    with pytest.raises(LoraNotFound, match="'styles/ink' cannot be read: No such file"):
        LoraLibrary([folder]).find(named("ink"))


def test_a_configuration_that_is_a_link_is_not_read(tmp_path: Path) -> None:
    """No link leads outside, not even for a configuration; nor is a huge one read."""
    (tmp_path / "secret.json").write_text('{"lora_alpha": 8}')
    path = to_file(tmp_path / "loras" / "adapter_model.safetensors", TENSORS)
    config = path.parent / "adapter_config.json"
    config.symlink_to(tmp_path / "secret.json")
    assert adapt.read_config(path) == ""
    config.unlink()
    config.write_text(" " * (adapt.MAX_CONFIG_BYTES + 1))
    assert adapt.read_config(path) == ""
