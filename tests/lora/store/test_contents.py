"""Hashing, reading and parsing LoRA files, and their configurations."""

from __future__ import annotations

import hashlib
import io
import os
import threading
from pathlib import Path

import pytest
import torch

from sdgrpc.domain import LoraRef
from sdgrpc.errors import LoraMalformed, LoraNotFound
from sdgrpc.lora.dialects.adapt import MAX_CONFIG_BYTES, read_config
from sdgrpc.lora.files import reading
from sdgrpc.lora.store import contents
from sdgrpc.lora.store.library import FoundLora, LoraLibrary
from tests.support.loras import LINEAR, kohya_file, to_bytes, to_file

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
    read = contents.read_adapter  # type: ignore[attr-defined]

    def counted(source: Path, name: str, *rest: object, **options: object) -> object:
        parsed.append(name)
        return read(source, name, *rest, **options)

    monkeypatch.setattr(contents, "read_adapter", counted)
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


def test_what_is_kept_is_not_dropped(folder: Path) -> None:
    """However often others are parsed, until it is not named any more."""
    library = LoraLibrary([folder], cache_bytes=1)
    ink = library.find(named("ink"))
    library.parsed.keep({ink.identity})
    first = ink.adapter()
    oil = library.find(named("styles/oil"))
    assert oil.adapter() is oil.adapter()
    assert ink.adapter() is first
    oil.adapter()
    library.parsed.keep(())
    assert not library.parsed.holds(ink.identity)
    assert library.parsed.holds(oil.identity)


def forgetful(folder: Path) -> tuple[LoraLibrary, FoundLora]:
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
    read = contents.read_adapter  # type: ignore[attr-defined]

    def gone(source: Path, *rest: object, **options: object) -> object:
        source.unlink()
        return read(source, *rest, **options)

    monkeypatch.setattr(contents, "read_adapter", gone)
    with pytest.raises(LoraNotFound, match="'styles/ink' cannot be read: No such file"):
        LoraLibrary([folder]).find(named("ink"))


def test_a_configuration_that_is_a_link_is_not_read(tmp_path: Path) -> None:
    """No link leads outside, not even for a configuration; nor is a huge one read."""
    (tmp_path / "secret.json").write_text('{"lora_alpha": 8}')
    path = to_file(tmp_path / "loras" / "adapter_model.safetensors", TENSORS)
    config = path.parent / "adapter_config.json"
    config.symlink_to(tmp_path / "secret.json")
    assert read_config(path) == ""
    config.unlink()
    config.write_text(" " * (MAX_CONFIG_BYTES + 1))
    assert read_config(path) == ""


def test_what_is_called_like_a_configuration_and_is_no_file(tmp_path: Path) -> None:
    """A pipe, a device's link or a folder of that name holds nobody up: jobs with the file go on."""
    path = to_file(tmp_path / "adapter_model.safetensors", TENSORS)
    config = tmp_path / "adapter_config.json"
    library = LoraLibrary([tmp_path])
    for make in (os.mkfifo, Path.mkdir, lambda place: place.symlink_to("/dev/zero")):
        make(config)
        assert read_config(path) == ""
        for _ in range(2):
            assert library.find(named("adapter_model")).adapter().modules
        config.rmdir() if config.is_dir() else config.unlink()


def test_a_file_that_is_overwritten_while_it_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In place, to the same size, its time put back: what came is a mix, and refused; later it is taken."""
    path = folder / "styles" / "ink.safetensors"
    before, fill = path.stat(), reading._fill
    new = to_bytes(kohya_file(LINEAR, seed=3))
    assert len(new) == before.st_size

    def overwritten(file: io.FileIO, data: torch.Tensor, alive: object) -> None:
        del alive
        file.readinto(memoryview(data.numpy())[:100])
        path.open("r+b").write(new)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        fill(file, data[100:])

    library = LoraLibrary([folder])
    monkeypatch.setattr(reading, "_fill", overwritten)
    with pytest.raises(LoraMalformed, match=r"'styles/ink': was changed while it was read") as caught:
        library.find(named("ink"))
    assert caught.value.reason == "LORA_MALFORMED"
    monkeypatch.undo()
    assert library.find(named("ink")).sha256 == hashlib.sha256(new).hexdigest()


def test_a_file_that_is_overwritten_while_it_is_hashed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a list of files: no hash is told that was of neither content."""
    path = folder / "styles" / "ink.safetensors"
    new, stamp = to_bytes(kohya_file(LINEAR, seed=3)), reading._stamp

    def overwritten(file: io.FileIO) -> tuple[int, ...]:
        found = stamp(file)
        if Path(f"/proc/self/fd/{file.fileno()}").readlink() == path:
            path.write_bytes(new)
        return found

    library = LoraLibrary([folder])
    entry = next(entry for entry in library.entries() if entry.name == "styles/ink")
    monkeypatch.setattr(reading, "_stamp", overwritten)
    with pytest.raises(LoraMalformed, match="was changed while it was read"):
        library.hashes_of_entry(entry)


def test_a_content_that_is_expected_is_known_by_its_hash(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new access time, as uploads get at each use, is no change."""
    library, file = forgetful(folder)
    del library
    fill = reading._fill
    monkeypatch.setattr(reading, "_fill", lambda *arguments: (os.utime(file.path), fill(*arguments)))
    assert file.adapter().sha256 == file.sha256


def test_files_are_read_side_by_side(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first reading holds up nobody who wants another file."""
    begun, go_on = threading.Event(), threading.Event()
    read = contents.read_adapter  # type: ignore[attr-defined]

    def slow(source: Path, name: str, *rest: object, **options: object) -> object:
        if name == "styles/ink":
            begun.set()
            assert go_on.wait(30)
        return read(source, name, *rest, **options)

    monkeypatch.setattr(contents, "read_adapter", slow)
    library = LoraLibrary([folder])
    thread = threading.Thread(target=lambda: library.find(named("ink")))
    thread.start()
    assert begun.wait(30)
    assert library.find(named("styles/oil")).adapter().modules
    assert thread.is_alive()
    go_on.set()
    thread.join()
