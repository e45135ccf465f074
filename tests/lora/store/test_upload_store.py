"""The folder of uploads: whole or not at all, within its budget."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from sdgrpc.domain import LoraRef, UploadHeader
from sdgrpc.errors import (
    InvalidRequest,
    LoraIncompatible,
    LoraNotFound,
    SettingsError,
    StorageFull,
    TooManyCalls,
)
from sdgrpc.lora.store import stored_names
from sdgrpc.lora.store.library import LoraLibrary
from sdgrpc.lora.store.stored_names import MAX_NAMES_OF_ONE, StoredNames
from sdgrpc.lora.store.upload import IncomingFile
from sdgrpc.lora.store.upload_store import MAX_OPEN, UploadStore


def accept(_path: Path, _name: str) -> None:
    """Every file is good."""


def open_store(folder: Path, budget: int = 1000, check=accept) -> UploadStore:
    return UploadStore(folder, budget, check)


def header_of(content: bytes, name: str = "one") -> UploadHeader:
    return UploadHeader(name, hashlib.sha256(content).hexdigest(), len(content))


def put(store: UploadStore, content: bytes, name: str = "one") -> str:
    """Upload a file; its hash."""
    upload = IncomingFile(store, header_of(content, name))
    try:
        upload.write(content[:3])
        upload.write(content[3:])
        upload.commit()
    finally:
        upload.abort()
    return upload.header.sha256


def files_in(folder: Path) -> set[str]:
    """What is there beside the store's own books."""
    return {path.name for path in folder.iterdir()} - {".lock", "names.json"}


def test_a_file_is_found_by_hash_and_name_after_a_restart(tmp_path: Path) -> None:
    """It lies under its hash; its name is in the books."""
    store = open_store(tmp_path)
    sha256 = put(store, b"content")
    store.close()
    again = open_store(tmp_path)
    assert again.find(sha256).read_bytes() == b"content"
    assert again.listed() == {"one": tmp_path / f"{sha256}.safetensors"}
    assert files_in(tmp_path) == {f"{sha256}.safetensors"}


def test_a_name_means_the_last_upload(tmp_path: Path) -> None:
    """The file that lost it goes by its hash."""
    store = open_store(tmp_path)
    old, new = put(store, b"content"), put(store, b"another")
    assert store.hash_of("one") == new
    assert set(store.listed()) == {"one", old}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"size": 8}, "header.size_bytes"),
        ({"size": 6}, "header.size_bytes"),
        ({"sha256": "0" * 64}, "header.sha256"),
    ],
)
def test_what_is_not_as_announced_leaves_nothing(tmp_path: Path, change, field: str) -> None:
    """Too short, too long, another content."""
    values = {"name": "one", "sha256": hashlib.sha256(b"content").hexdigest(), "size": 7, **change}
    store = open_store(tmp_path)
    upload = IncomingFile(store, UploadHeader(**values))
    with pytest.raises(InvalidRequest) as caught:
        upload.write(b"content")
        upload.commit()
    upload.abort()
    assert caught.value.violations[0].field == field
    assert files_in(tmp_path) == set()


def test_a_refused_file_leaves_nothing(tmp_path: Path) -> None:
    """It is checked before it gets its place."""

    def refuse(path: Path, name: str) -> None:
        assert path.read_bytes() == b"content"
        raise LoraIncompatible(name, "is for Flux")

    with pytest.raises(LoraIncompatible, match="Flux"):
        put(open_store(tmp_path, check=refuse), b"content")
    assert files_in(tmp_path) == set()


def test_an_abort_during_the_check_leaves_nothing(tmp_path: Path) -> None:
    """A call may be cancelled while its file is read."""
    uploads: list[IncomingFile] = []
    store = open_store(tmp_path, check=lambda _path, _name: uploads[0].abort())
    uploads.append(IncomingFile(store, header_of(b"content")))
    uploads[0].write(b"content")
    uploads[0].commit()
    assert files_in(tmp_path) == set()
    assert store.listed() == {}


def test_leftovers_of_a_crash_are_removed(tmp_path: Path) -> None:
    """An upload that never ended is none."""
    (tmp_path / ".partial-x").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("not ours")
    open_store(tmp_path)
    assert files_in(tmp_path) == {"notes.txt"}


def test_those_used_longest_ago_make_room(tmp_path: Path) -> None:
    """Using a file saves it; its name goes with it."""
    store = open_store(tmp_path, budget=21)
    first, second, third = (put(store, bytes([n]) * 7, str(n)) for n in range(3))
    assert store.find(first)
    fourth = put(store, b"content", "3")
    assert files_in(tmp_path) == {f"{sha256}.safetensors" for sha256 in (first, third, fourth)}
    assert store.find(second) is None
    assert store.hash_of("1") is None


def test_the_order_of_use_survives_a_restart(tmp_path: Path) -> None:
    """It is kept as the files' access times."""
    store = open_store(tmp_path, budget=14)
    first, second = put(store, b"1" * 7, "1"), put(store, b"2" * 7, "2")
    os.utime(store.path_of(first), ns=(10, 10))
    os.utime(store.path_of(second), ns=(5, 10))
    store.close()
    again = open_store(tmp_path, budget=14)
    put(again, b"content", "3")
    assert (again.find(first) is None, again.find(second) is None) == (False, True)


def test_a_file_in_use_is_never_evicted(tmp_path: Path) -> None:
    """An upload that would need its room is refused, and may try again later."""
    store = open_store(tmp_path, budget=10)
    sha256 = put(store, b"content")
    with store.pinned([sha256]):
        with pytest.raises(StorageFull) as caught:
            IncomingFile(store, header_of(b"another"))
        assert caught.value.retry_after
    put(store, b"another")
    assert store.find(sha256) is None


def test_what_came_of_uploads_counts(tmp_path: Path) -> None:
    """Bytes that are on the disk take room; those of an aborted upload no more."""
    store = open_store(tmp_path, budget=10)
    upload = IncomingFile(store, header_of(b"content"))
    upload.write(b"content")
    with pytest.raises(StorageFull, match="by other uploads") as caught:
        IncomingFile(store, header_of(b"another"))
    assert caught.value.retry_after
    upload.abort()
    put(store, b"another")


def test_what_is_only_announced_holds_nothing(tmp_path: Path) -> None:
    """Three that claim the budget and send nothing keep nobody from it; together they get no more than it."""
    store = open_store(tmp_path, budget=10)
    silent = [IncomingFile(store, UploadHeader(str(n), f"{n}" * 64, 10)) for n in range(3)]
    put(store, b"content")
    silent[0].write(b"12345678")  # evicts the other's file, which nobody uses
    with pytest.raises(StorageFull):
        silent[1].write(b"123")
    for upload in silent:
        upload.abort()
    assert files_in(tmp_path) == set()


def test_uploads_on_their_way_are_bounded(tmp_path: Path) -> None:
    """Each holds a file open; one that ended makes room for another."""
    store = open_store(tmp_path)
    uploads = [IncomingFile(store, header_of(b"content", str(n))) for n in range(MAX_OPEN)]
    with pytest.raises(TooManyCalls, match="64 uploads are on their way"):
        IncomingFile(store, header_of(b"content"))
    uploads[0].abort()
    uploads[0] = IncomingFile(store, header_of(b"content"))
    for upload in uploads:
        upload.abort()


def test_one_content_has_a_bounded_number_of_names(tmp_path: Path) -> None:
    """The hundred and first is refused, whichever way it comes; those that are there stay."""
    store = open_store(tmp_path)
    sha256 = put(store, b"content", "0")
    late = IncomingFile(store, header_of(b"content", "late"))
    late.write(b"content")
    for number in range(1, MAX_NAMES_OF_ONE):
        store.name(str(number), sha256)
    written = (tmp_path / "names.json").read_bytes()
    for refused in (
        lambda: store.name("another", sha256),
        lambda: IncomingFile(store, header_of(b"content", "another")),
        late.commit,
    ):
        with pytest.raises(StorageFull, match=r"this content has 100 names already.*such as '0'"):
            refused()
    late.abort()
    assert (tmp_path / "names.json").read_bytes() == written
    store.name("0", sha256)
    put(store, b"other", "1")  # a name that moves away makes room
    store.name("another", sha256)
    assert files_in(tmp_path) == {f"{sha256}.safetensors", f"{header_of(b'other').sha256}.safetensors"}


def test_names_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In all; a name that is there may mean another content."""
    monkeypatch.setattr(stored_names, "MAX_NAMES", 3)
    store = open_store(tmp_path)
    for number in range(3):
        put(store, bytes([number]) * 7, str(number))
    with pytest.raises(StorageFull, match="have 3 names already"):
        IncomingFile(store, header_of(b"content", "3"))
    put(store, b"content", "2")
    assert store.hash_of("2") == header_of(b"content").sha256


def test_names_are_read_and_written_under_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By whichever question of the library."""
    store = open_store(tmp_path / "uploads")
    held: list[bool] = []
    for name in ("get", "items", "values", "give", "drop", "check_room"):
        original = getattr(StoredNames, name)

        def asked(self: StoredNames, *rest: str, original=original):
            held.append(store._lock._is_owned())  # type: ignore[attr-defined]
            return original(self, *rest)

        monkeypatch.setattr(StoredNames, name, asked)
    sha256 = put(store, b"content")
    library = LoraLibrary([], uploads=store)
    assert library.find(LoraRef(1, 1, name="one")).sha256 == sha256
    assert library.find(LoraRef(1, 1, sha256=sha256)).name == "one"
    assert [entry.name for entry in library.entries()] == ["one"]
    assert library.begin_upload(header_of(b"content", "two"), 100).name == "two"
    with pytest.raises(LoraNotFound):
        library.find(LoraRef(1, 1, name="none"))
    assert len(held) > 5
    assert all(held)


def test_a_file_is_on_the_disk_before_its_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All its bytes are flushed, then it is renamed, then the folder is: so with the file of names."""
    done: list[tuple[str, str, int]] = []
    sync, rename = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        done.append(("sync", path.name, os.fstat(descriptor).st_size if path.is_file() else 0))
        sync(descriptor)

    def renamed(source: Path, target: Path) -> None:
        done.append(("rename", Path(target).name, Path(source).stat().st_size))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    folder = tmp_path / "uploads"
    sha256 = put(open_store(folder), b"content")
    names = (folder / "names.json").stat().st_size
    ((first, partial, size), *rest) = done
    assert (first, partial.startswith(".partial-"), size) == ("sync", True, len(b"content"))
    assert rest == [
        ("rename", f"{sha256}.safetensors", len(b"content")),
        ("sync", "uploads", 0),
        ("sync", ".partial-names.json", names),
        ("rename", "names.json", names),
        ("sync", "uploads", 0),
    ]


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_books_that_are_no_file_lose_names_only(tmp_path: Path, make) -> None:
    """A pipe, a folder or a link to a device is not read, and keeps no server from starting."""
    store = open_store(tmp_path)
    sha256 = put(store, b"content")
    store.close()
    (tmp_path / "names.json").unlink()
    make(tmp_path / "names.json")
    assert set(open_store(tmp_path).listed()) == {sha256}


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/null")])
def test_a_lock_that_is_no_file_is_named(tmp_path: Path, make) -> None:
    """Nobody waits for it."""
    make(tmp_path / ".lock")
    with pytest.raises(SettingsError, match="upload_dir"):
        open_store(tmp_path)


def test_a_link_is_no_upload(tmp_path: Path) -> None:
    """One that leads out of the folder is not served, whatever its name."""
    (tmp_path / "elsewhere").write_bytes(b"secret")
    folder = tmp_path / "uploads"
    folder.mkdir()
    (folder / f"{'0' * 64}.safetensors").symlink_to(tmp_path / "elsewhere")
    assert open_store(folder).listed() == {}


def test_two_uploads_of_one_content_both_succeed(tmp_path: Path) -> None:
    """The later one replaces the same bytes."""
    store = open_store(tmp_path, budget=100)
    uploads = [IncomingFile(store, header_of(b"content", name)) for name in ("one", "two")]
    for upload in uploads:
        upload.write(b"content")
    for upload in uploads:
        upload.commit()
    assert set(store.listed()) == {"one", "two"}
    assert len(files_in(tmp_path)) == 1


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RESOURCE_EXHAUSTED, and nothing stays."""

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    store = open_store(tmp_path)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFull, match="disk is full"):
        put(store, b"content")
    assert files_in(tmp_path) == set()


def test_a_folder_has_one_server(tmp_path: Path) -> None:
    """Two would remove each other's halves."""
    store = open_store(tmp_path)
    with pytest.raises(SettingsError, match="another server"):
        open_store(tmp_path)
    store.close()
    open_store(tmp_path)


def test_broken_books_lose_names_only(tmp_path: Path) -> None:
    """The files are found by their hashes."""
    store = open_store(tmp_path)
    sha256 = put(store, b"content")
    store.close()
    (tmp_path / "names.json").write_text("{")
    assert set(open_store(tmp_path).listed()) == {sha256}
