"""What small files say, read again when one of them changes, without a restart."""

from __future__ import annotations

import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from sdgrpc.errors import SettingsError

logger = logging.getLogger(__name__)

T = TypeVar("T")

MAX_BYTES = 1 << 20
SETTLED_SECONDS = 2.0
"""A file written less long ago is read again: its times may be too coarse to tell of a second write."""

Stamp = tuple[int, int, int, int, int]


class Reloaded(Generic[T]):
    """What `parse` makes of the files' contents. Thread safe.

    A change is seen at the next `get` or `renewed`. What cannot be read or parsed changes nothing: what held
    before goes on, and the log says so once. So a file may be replaced or written over at any time.

    Args:
        paths: the files, all of them small.
        parse: makes the value of their contents; raises SettingsError, without quoting what is secret.

    Raises:
        SettingsError: at the start they cannot be read, or `parse` says so.

    """

    def __init__(self, paths: Sequence[Path], parse: Callable[[Sequence[bytes]], T]) -> None:
        self._paths, self._parse = tuple(paths), parse
        self._lock = threading.Lock()
        self._stamps: tuple[Stamp, ...] = ()
        self._contents: tuple[bytes, ...] = ()
        self._complaint = ""
        self._value = self._read()

    def get(self) -> T:
        """Return what the files say now, or what they last said in good order."""
        self.renewed()
        return self._value

    def renewed(self) -> T | None:
        """Return what the files say if that is new since the last look, else None."""
        with self._lock:
            try:
                if self._stamps == tuple(stamp_of(path.stat()) for path in self._paths):
                    return None
                before = self._contents
                value = self._read()
            except (SettingsError, OSError) as error:
                self._complain(str(error))
                return None
            if self._contents == before and not self._complaint:
                return None
            self._complaint = ""
            self._value = value
            logger.info("read again: %s", self._names)
            return value

    @property
    def _names(self) -> str:
        return ", ".join(map(str, self._paths))

    def _read(self) -> T:
        contents, stamps = zip(*map(read_whole, self._paths), strict=True)
        value = self._value if contents == self._contents else self._parse(contents)
        newest = max(max(stamp[:2]) for stamp in stamps) / 1e9
        self._stamps = stamps if time.time() - newest > SETTLED_SECONDS else ()
        self._contents = contents
        return value

    def _complain(self, text: str) -> None:
        if text != self._complaint:
            logger.error("%s; what was read before stays in force", text)
        self._complaint = text


def read_whole(path: Path) -> tuple[bytes, Stamp]:
    """Return a small regular file's content and what tells this version of it from others.

    Raises:
        SettingsError: it is missing, no regular file, too large, or changes while it is read.

    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode):
                raise SettingsError(f"{path}: is not a regular file")
            content = file.read(MAX_BYTES + 1)
            after = os.fstat(descriptor)
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from None
    if len(content) > MAX_BYTES:
        raise SettingsError(f"{path}: is larger than {MAX_BYTES} bytes")
    if stamp_of(before) != stamp_of(after):
        raise SettingsError(f"{path}: changed while it was read")
    return content, stamp_of(after)


def stamp_of(status: os.stat_result) -> Stamp:
    """Return times first: what differs once a file is written or replaced."""
    return (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino, status.st_dev)
