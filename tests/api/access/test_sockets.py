"""Unix sockets: who can enter the folder, what is there already."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from sdgrpc.api.access.sockets import SocketPlace
from sdgrpc.errors import SettingsError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for this user alone."""
    (tmp_path / "own").mkdir(mode=0o700)
    return tmp_path / "own"


def listening(path: Path) -> socket.socket:
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()
    return server


def test_a_missing_folder_is_made_for_its_user_alone(tmp_path: Path) -> None:
    """With mode 0700, whatever the umask is."""
    before = os.umask(0)
    try:
        SocketPlace(tmp_path / "new/s").release()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o755, 0o710, 0o701, 0o770, 0o777])
def test_a_folder_that_others_can_enter_is_refused(folder: Path, mode: int) -> None:
    """It says what to do; nothing is left there."""
    folder.chmod(mode)
    with pytest.raises(SettingsError, match="chmod 700"):
        SocketPlace(folder / "s")
    assert not list(folder.iterdir())


def test_folders_that_are_none_or_another_users(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link, a file, a folder above that is missing, somebody else's."""
    (folder / "link").symlink_to(folder)
    (folder / "file").touch()
    for name, words in (("link/s", "not a folder"), ("file/s", "not a folder"), ("no/no/s", "No such file")):
        with pytest.raises(SettingsError, match=words):
            SocketPlace(folder / name)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(SettingsError, match="another user"):
        SocketPlace(folder / "s")


def test_a_stale_socket_makes_room(folder: Path) -> None:
    """What a crashed server left is removed."""
    path = folder / "s"
    listening(path).close()
    assert path.is_socket()
    place = SocketPlace(path)
    assert not path.exists()
    place.release()
    place.release()


def test_a_socket_in_use_is_left_alone(folder: Path) -> None:
    """Neither a server of ours, which holds the lock, nor another's loses its socket."""
    with listening(folder / "other"), pytest.raises(SettingsError, match="another server does"):
        SocketPlace(folder / "other")
    assert (folder / "other").is_socket()
    ours = SocketPlace(folder / "ours")
    with pytest.raises(SettingsError, match="another server does"):
        SocketPlace(folder / "ours")
    ours.release()
    SocketPlace(folder / "ours").release()


def test_what_is_no_socket_is_left_alone(folder: Path) -> None:
    """A slip of the pen does not cost a file."""
    (folder / "s").write_text("mine")
    with pytest.raises(SettingsError, match="is no socket"):
        SocketPlace(folder / "s")
    assert (folder / "s").read_text() == "mine"


def test_a_path_too_long_for_a_socket(folder: Path) -> None:
    """The system's limit is told before it cuts the name."""
    with pytest.raises(SettingsError, match="107 bytes"):
        SocketPlace(folder / ("s" * 108))
