"""Unix sockets: in a folder that only its user can enter, and one server to a socket."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path

from sdgrpc.errors import SettingsError

MAX_PATH_BYTES = 107  # what Linux takes, without the final zero


class SocketPlace:
    """The right to listen on `unix:PATH`, held until `release`.

    The folder is made if it is missing; a socket that a crashed server left is removed. A lock beside the
    socket, which ends with the process that holds it, keeps two servers from taking each other's.

    Raises:
        SettingsError: others can enter the folder, the path is something else, or a server listens there.

    """

    def __init__(self, path: Path) -> None:
        self._path = path
        if len(os.fsencode(path)) > MAX_PATH_BYTES:
            raise SettingsError(
                f"listen: {path} is longer than the {MAX_PATH_BYTES} bytes that a socket's may be"
            )
        check_folder(path.parent)
        self._lock = _locked(path)
        try:
            remove_stale(path)
        except BaseException:
            os.close(self._lock)
            raise

    def release(self) -> None:
        """Remove the socket, if the server left it, and let others listen there. May be called twice."""
        if self._lock >= 0:
            with suppress(OSError):
                self._path.unlink()
            os.close(self._lock)
            self._lock = -1


def check_folder(folder: Path) -> None:
    """Make the folder for its user alone, or check that it is so: whoever can enter could connect."""
    try:
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        status = folder.lstat()
    except OSError as error:
        raise SettingsError(f"listen: {folder}: {error.strerror}") from None
    if not stat.S_ISDIR(status.st_mode):
        raise SettingsError(f"listen: {folder} is not a folder")
    if status.st_uid != os.geteuid():
        raise SettingsError(f"listen: the folder {folder} belongs to another user; name one of your own")
    if status.st_mode & 0o077:
        raise SettingsError(
            f"listen: others can enter the folder {folder}; name one that is missing, or chmod 700 it"
        )


def remove_stale(path: Path) -> None:
    """Remove a socket on which nobody listens."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise SettingsError(f"listen: {path} is there and is no socket")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError as error:
            if error.errno != errno.ECONNREFUSED:
                raise SettingsError(f"listen: cannot tell who listens on {path}: {error}") from None
        else:
            raise SettingsError(f"cannot listen on unix:{path}: another server does")
    path.unlink()


def _locked(path: Path) -> int:
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise SettingsError(f"cannot listen on unix:{path}: another server does") from None
    return lock
