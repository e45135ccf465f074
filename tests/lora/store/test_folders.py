"""The index of folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdgrpc.lora.store.folders import FolderIndex


def touch(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def names(index: FolderIndex, name: str) -> list[str]:
    return [file.name for file in index.find(name)]


def test_names_are_relative_paths_without_ending(tmp_path: Path) -> None:
    """Sub-folders are part of the name; the ending may be given or not; the last part alone is enough."""
    touch(tmp_path / "top.safetensors")
    touch(tmp_path / "styles" / "ink.v1.5.safetensors")
    touch(tmp_path / "notes.txt")
    index = FolderIndex([tmp_path])
    assert [file.name for file in index.files()] == ["styles/ink.v1.5", "top"]
    for name in ("styles/ink.v1.5", "styles/ink.v1.5.safetensors", "ink.v1.5", "ink.v1.5.safetensors"):
        assert names(index, name) == ["styles/ink.v1.5"]
    assert names(index, "ink") == []
    assert names(index, "notes") == []


def test_a_stem_that_is_not_unique_gives_all(tmp_path: Path) -> None:
    """The caller says which there are; a whole name goes before a part of one."""
    touch(tmp_path / "a" / "ink.safetensors")
    touch(tmp_path / "b" / "ink.safetensors")
    index = FolderIndex([tmp_path])
    assert names(index, "ink") == ["a/ink", "b/ink"]
    touch(tmp_path / "ink.safetensors")
    assert names(index, "ink") == ["ink"]


def test_the_first_folder_goes_before_the_second(tmp_path: Path) -> None:
    """Two folders may have a file of one name."""
    first = touch(tmp_path / "one" / "ink.safetensors")
    touch(tmp_path / "two" / "ink.safetensors")
    touch(tmp_path / "two" / "oil.safetensors")
    index = FolderIndex([tmp_path / "one", tmp_path / "two"])
    assert [file.path for file in index.find("ink")] == [first]
    assert names(index, "oil") == ["oil"]


def test_changes_are_seen(tmp_path: Path) -> None:
    """New, rewritten and removed files are found as they are now, without a restart."""
    index = FolderIndex([tmp_path])
    assert names(index, "ink") == []
    path = touch(tmp_path / "deep" / "ink.safetensors", b"one")
    (before,) = index.find("ink")
    touch(path, b"three")
    (after,) = index.find("ink")
    assert before != after
    assert after.size == 5
    path.unlink()
    assert names(index, "ink") == []


def test_safetensors_goes_before_a_pickle_of_the_same_name(tmp_path: Path) -> None:
    """The pickle is found only by its ending."""
    touch(tmp_path / "ink.ckpt")
    index = FolderIndex([tmp_path])
    assert index.find("ink")[0].path.suffix == ".ckpt"
    touch(tmp_path / "ink.safetensors")
    touch(tmp_path / "ink.pt")
    assert index.find("ink")[0].path.suffix == ".safetensors"
    assert index.find("ink.pt")[0].path.suffix == ".pt"


@pytest.mark.parametrize(
    "name",
    [
        "../secret",
        "../secret.safetensors",
        "a/../../secret",
        "/etc/passwd",
        "{root}/secret.safetensors",
        "",
        ".",
        "..",
    ],
)
def test_no_name_leads_outside(tmp_path: Path, name: str) -> None:
    """Paths in names are no paths: they are looked up and not found."""
    touch(tmp_path / "secret.safetensors")
    touch(tmp_path / "loras" / "a" / "ink.safetensors")
    assert FolderIndex([tmp_path / "loras"]).find(name.format(root=tmp_path)) == []


def test_links_outside_are_ignored(tmp_path: Path) -> None:
    """A link to a file or folder elsewhere is as if it were not there; one that stays inside works."""
    touch(tmp_path / "elsewhere" / "secret.safetensors")
    real = touch(tmp_path / "loras" / "real.safetensors")
    (tmp_path / "loras" / "file.safetensors").symlink_to(tmp_path / "elsewhere" / "secret.safetensors")
    (tmp_path / "loras" / "folder").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "loras" / "gone.safetensors").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loras" / "alias.safetensors").symlink_to(real)
    index = FolderIndex([tmp_path / "loras"])
    assert names(index, "file") == names(index, "folder/secret") == names(index, "secret") == []
    assert names(index, "gone") == []
    assert [file.path for file in index.find("alias")] == [real]


def test_a_file_that_becomes_a_link_outside_is_gone(tmp_path: Path) -> None:
    """The place is checked at every lookup, not only when the folder was searched."""
    secret = touch(tmp_path / "secret.safetensors")
    path = touch(tmp_path / "loras" / "ink.safetensors")
    index = FolderIndex([tmp_path / "loras"])
    assert names(index, "ink") == ["ink"]
    path.unlink()
    path.symlink_to(secret)
    assert names(index, "ink") == []


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    """A folder that contains itself is searched once."""
    touch(tmp_path / "a" / "ink.safetensors")
    (tmp_path / "a" / "again").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "self").symlink_to(tmp_path / "a" / "self")
    assert [file.name for file in FolderIndex([tmp_path]).files()] == ["a/ink"]


def test_a_folder_that_is_not_there_is_empty(tmp_path: Path) -> None:
    """It may come later."""
    index = FolderIndex([tmp_path / "later"])
    assert index.files() == []
    touch(tmp_path / "later" / "ink.safetensors")
    assert names(index, "ink") == ["ink"]


def test_a_folder_called_like_a_file_is_no_file(tmp_path: Path) -> None:
    """`x.safetensors/` is a folder."""
    touch(tmp_path / "x.safetensors" / "ink.safetensors")
    assert names(FolderIndex([tmp_path]), "x") == []


def test_a_folder_that_goes_is_noticed(tmp_path: Path) -> None:
    """It takes its files with it, and may come again."""
    path = touch(tmp_path / "a" / "ink.safetensors")
    index = FolderIndex([tmp_path / "a"])
    assert names(index, "ink") == ["ink"]
    path.unlink()
    path.parent.rmdir()
    assert names(index, "ink") == []
    touch(path)
    assert names(index, "ink") == ["ink"]
