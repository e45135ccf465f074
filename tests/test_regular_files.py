"""Files that are opened only if they are ordinary ones."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from sdgrpc.regular_files import check_folder, open_regular, read_regular


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


@pytest.mark.parametrize(
    "make",
    [
        os.mkfifo,
        Path.mkdir,
        listening,
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.symlink_to(path),
    ],
    ids=["pipe", "folder", "socket", "device", "circle"],
)
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """Nobody is waited for, nothing endless is read, and no descriptor is left open."""
    path = tmp_path / "a"
    make(path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(OSError):  # noqa: PT011 - each has its own words
        read_regular(path, 100)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_file_is_read_up_to_a_bound(tmp_path: Path) -> None:
    """All of it, or nothing if it is larger."""
    path = tmp_path / "a"
    path.write_bytes(b"x" * 100)
    assert read_regular(path, 100) == b"x" * 100
    with pytest.raises(OSError, match="has more than 99 bytes"):
        read_regular(path, 99)


def test_links_are_followed_where_that_is_wanted(tmp_path: Path) -> None:
    """The cache of a hub is made of links; a LoRA folder has none that lead outside."""
    (tmp_path / "a").write_bytes(b"x")
    link = tmp_path / "b"
    link.symlink_to(tmp_path / "a")
    with open_regular(link) as file:
        assert file.read() == b"x"
    with pytest.raises(OSError, match="symbolic"):
        open_regular(link, follow_links=False)


def test_a_folder_is_looked_through(tmp_path: Path) -> None:
    """For libraries that open what lies there by name: files, folders and links to them are in order."""
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    (tmp_path / "c").mkdir()
    check_folder(tmp_path)
    os.mkfifo(tmp_path / "d")
    with pytest.raises(OSError, match="is no regular file"):
        check_folder(tmp_path)
