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
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from io import FileIO
from pathlib import Path

from sdgrpc.domain import UploadHeader
from sdgrpc.errors import SettingsError, StorageFull, TooManyCalls
from sdgrpc.lora.store.stored_names import StoredNames, sync_folder

SUFFIX = ".safetensors"
PARTIAL = ".partial-"
LOCK = ".lock"
RETRY_SECONDS = 5.0
MAX_OPEN = 64
"""How many uploads may be on their way: each holds an open file."""

_HASH = re.compile("[0-9a-f]{64}")


class UploadStore:
    """Keeps uploaded files in `folder`. Thread safe; close it to let another process have the folder.

    Args:
        folder: a folder of its own; made if it is missing.
        budget_bytes: what all files may take together, and what came of those on their way.
        check: called with a whole file and its name before it is taken; raises to refuse it.

    Raises:
        SettingsError: the folder cannot be made or written, or another process has it.

    """

    def __init__(self, folder: Path, budget_bytes: int, check: Callable[[Path, str], None]) -> None:
        self.folder, self.budget_bytes, self.check = folder.resolve(), budget_bytes, check
        self._lock = threading.RLock()
        self._pins: Counter[str] = Counter()
        self._written: dict[object, int] = {}  # upload -> its bytes that came
        self._sizes: dict[str, int] = {}
        self._used: dict[str, int] = {}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock_file = _open_lock(self.folder / LOCK)
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
            elif path.suffix == SUFFIX and _HASH.fullmatch(path.stem) and _is_regular(path):
                found = path.stat()
                self._sizes[path.stem], self._used[path.stem] = found.st_size, found.st_atime_ns
        self._names = StoredNames(self.folder)

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
        """Let a name mean content that is there already, an upload's or a folder's.

        Raises:
            StorageFull: there are too many names, of this content or in all.

        """
        with self._lock, as_storage_full():
            self._names.give(name, sha256)

    def hash_of(self, name: str) -> str | None:
        """Return the hash that a name means; None if no upload was called so."""
        with self._lock:
            return self._names.get(name)

    def name_of(self, sha256: str) -> str:
        """Return the first of a content's names in their order; its hash if it has none."""
        with self._lock:
            return min((name for name, other in self._names.items() if other == sha256), default=sha256)

    def listed(self) -> dict[str, Path]:
        """Return the files by name; one that lost its name to another goes by its hash."""
        with self._lock:
            files = {
                name: self.path_of(sha256) for name, sha256 in self._names.items() if sha256 in self._sizes
            }
            nameless = self._sizes.keys() - set(self._names.values())
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
        """Note a file that is on its way. Only what came of the others counts, not what they announced.

        Raises:
            StorageFull: the files in use, and what came of other uploads, leave no room for it; or there are
                too many names.
            TooManyCalls: as many uploads as may be are on their way.

        """
        with self._lock:
            self._names.check_room(header.name, header.sha256)
            if len(self._written) >= MAX_OPEN:
                raise TooManyCalls(f"{MAX_OPEN} uploads are on their way already", retry_after=RETRY_SECONDS)
            kept = sum(size for sha256, size in self._sizes.items() if self._pins[sha256] > 0)
            if kept + sum(self._written.values()) + header.size > self.budget_bytes:
                raise self._full("files in use and by other uploads")
            self._written[claim] = 0

    def make_room(self, claim: object, written: int) -> None:
        """Evict unused files until so many bytes of the upload have room beside the others."""
        with self._lock:
            self._written[claim] = written
            held = sum(self._sizes.values()) + sum(self._written.values())
            for sha256 in sorted(self._sizes, key=self._used.__getitem__):
                if held <= self.budget_bytes:
                    return
                if self._pins[sha256] <= 0:
                    held -= self._sizes[sha256]
                    self.path_of(sha256).unlink(missing_ok=True)
                    self._forget(sha256)
            if held > self.budget_bytes:
                raise self._full("files in use and by other uploads")

    def _full(self, held_by: str) -> StorageFull:
        return StorageFull(
            f"the uploads' budget of {self.budget_bytes} bytes is held by {held_by}; try again later",
            retry_after=RETRY_SECONDS,
        )

    def take(self, partial: Path, header: UploadHeader) -> None:
        """Make a whole, checked file the store's: it appears at once and stays after a crash.

        Raises:
            StorageFull: there are too many names; nothing has changed then.

        """
        with self._lock:
            self._names.check_room(header.name, header.sha256)
            partial.replace(self.path_of(header.sha256))
            sync_folder(self.folder)
            self._sizes[header.sha256], self._used[header.sha256] = header.size, time.time_ns()
            self._names.give(header.name, header.sha256)

    def release(self, claim: object) -> None:
        """Forget what came of an upload that has ended; calling it again does nothing."""
        with self._lock:
            self._written.pop(claim, None)

    def _forget(self, sha256: str) -> None:
        del self._sizes[sha256], self._used[sha256]
        self._names.drop(sha256)


def _is_regular(path: Path) -> bool:
    return not path.is_symlink() and path.is_file()


def _open_lock(path: Path) -> FileIO:
    """Open the lock's file, made if it is missing; OSError if something else has its name."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_NOFOLLOW
    file = FileIO(os.open(path, flags, 0o600), "r+b")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, f"{LOCK} is no regular file")
    return file


@contextlib.contextmanager
def as_storage_full() -> Iterator[None]:
    """Say by StorageFull that the disk has no room."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StorageFull("the server's disk is full; nothing of the upload was kept") from error
        raise
