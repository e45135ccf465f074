"""The folder of uploaded LoRA files: each under its hash, whole or not at all, within a budget of bytes.

`<sha256>.safetensors` are the files, `names.json` says which names mean which of them, `.partial-*` are on
their way. A file's access time, which only this module sets, says when it was used last. Files in use are
pinned; the others make room, those used longest ago first.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from sdgrpc.domain import UploadHeader
from sdgrpc.errors import SettingsError, StorageFull
from sdgrpc.lora.store.stored_names import StoredNames

SUFFIX = ".safetensors"
PARTIAL = ".partial-"
LOCK = ".lock"
RETRY_SECONDS = 5.0

_HASH = re.compile("[0-9a-f]{64}")


class UploadStore:
    """Keeps uploaded files in `folder`. Thread safe; close it to let another process have the folder.

    Args:
        folder: a folder of its own; made if it is missing.
        budget_bytes: what all files may take together, those on their way included.
        check: called with a whole file and its name before it is taken; raises to refuse it.

    Raises:
        SettingsError: the folder cannot be made or written, or another process has it.

    """

    def __init__(self, folder: Path, budget_bytes: int, check: Callable[[Path, str], None]) -> None:
        self.folder, self.budget_bytes, self.check = folder.resolve(), budget_bytes, check
        self._lock = threading.RLock()
        self._pins: Counter[str] = Counter()
        self._claims: dict[object, tuple[int, int]] = {}  # upload -> bytes claimed, bytes written
        self._sizes: dict[str, int] = {}
        self._used: dict[str, int] = {}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock_file = (self.folder / LOCK).open("w")
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._look()
        except BlockingIOError:
            raise SettingsError(f"upload_dir: another server uses {folder}; give each its own") from None
        except OSError as error:
            raise SettingsError(f"upload_dir: {folder}: {error.strerror}") from None

    def close(self) -> None:
        """Let go of the folder. May be called twice."""
        self._lock_file.close()

    def _look(self) -> None:
        """Find what an earlier process left: its files count, its half uploads are removed."""
        for path in self.folder.iterdir():
            if path.name.startswith(PARTIAL):
                path.unlink(missing_ok=True)
            elif path.suffix == SUFFIX and _HASH.fullmatch(path.stem) and path.is_file():
                stat = path.stat()
                self._sizes[path.stem], self._used[path.stem] = stat.st_size, stat.st_atime_ns
        self.names = StoredNames(self.folder)

    def path_of(self, sha256: str) -> Path:
        """Where a file of that hash is, or would be."""
        return self.folder / f"{sha256}{SUFFIX}"

    def find(self, sha256: str) -> Path | None:
        """Return where the file is, as one that is used now; None if it is not there."""
        with self._lock:
            path = self.path_of(sha256)
            if sha256 not in self._sizes:
                return None
            self._used[sha256] = now = time.time_ns()
            try:
                os.utime(path, ns=(now, path.stat().st_mtime_ns))
            except OSError:  # somebody removed it by hand
                self._forget(sha256)
                return None
            return path

    def name(self, name: str, sha256: str) -> None:
        """Let a name mean content that is there already."""
        with self._lock:
            self.names.give(name, sha256)

    def listed(self) -> dict[str, Path]:
        """Return the files by name; one that lost its name to another goes by its hash."""
        with self._lock:
            files = {
                name: self.path_of(sha256) for name, sha256 in self.names.items() if sha256 in self._sizes
            }
            nameless = self._sizes.keys() - set(self.names.values())
            return files | {sha256: self.path_of(sha256) for sha256 in nameless}

    @contextlib.contextmanager
    def pinned(self, hashes: Collection[str]) -> Iterator[None]:
        """Keep those of the hashes that are uploads from being evicted inside the block."""
        with self._lock:
            self._pins.update(hashes)
        try:
            yield
        finally:
            with self._lock:
                self._pins.subtract(hashes)

    # What an upload does, in this order; `claim` is the upload itself.

    def claim(self, claim: object, header: UploadHeader) -> None:
        """Reserve room for a file.

        Raises:
            StorageFull: the files in use and the other uploads leave none.

        """
        with self._lock:
            kept = sum(size for sha256, size in self._sizes.items() if self._pins[sha256] > 0)
            claimed = sum(size for size, _ in self._claims.values())
            if kept + claimed + header.size > self.budget_bytes:
                raise StorageFull(
                    f"the uploads' budget of {self.budget_bytes} bytes is held by files in use and by other "
                    "uploads; try again later",
                    retry_after=RETRY_SECONDS,
                )
            self._claims[claim] = (header.size, 0)

    def make_room(self, claim: object, written: int) -> None:
        """Evict unused files until so many bytes of the upload have room beside the others."""
        with self._lock:
            self._claims[claim] = (self._claims[claim][0], written)
            held = sum(self._sizes.values()) + sum(done for _, done in self._claims.values())
            for sha256 in sorted(self._sizes, key=self._used.__getitem__):
                if held <= self.budget_bytes:
                    return
                if self._pins[sha256] <= 0:
                    held -= self._sizes[sha256]
                    self.path_of(sha256).unlink(missing_ok=True)
                    self._forget(sha256)
            if held > self.budget_bytes:
                raise StorageFull(
                    f"the uploads' budget of {self.budget_bytes} bytes is held by files in use; "
                    "try again later",
                    retry_after=RETRY_SECONDS,
                )

    def take(self, partial: Path, header: UploadHeader) -> None:
        """Make a whole, checked file the store's: it appears at once and stays after a crash."""
        with self._lock:
            partial.replace(self.path_of(header.sha256))
            sync_folder(self.folder)
            self._sizes[header.sha256], self._used[header.sha256] = header.size, time.time_ns()
            self.names.give(header.name, header.sha256)

    def release(self, claim: object) -> None:
        """Give the reserved room back; calling it again does nothing."""
        with self._lock:
            self._claims.pop(claim, None)

    def _forget(self, sha256: str) -> None:
        del self._sizes[sha256], self._used[sha256]
        self.names.drop(sha256)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a crash."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def as_storage_full() -> Iterator[None]:
    """Say by StorageFull that the disk has no room."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StorageFull("the server's disk is full; nothing of the upload was kept") from error
        raise
