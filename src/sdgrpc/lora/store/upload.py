"""One upload on its way into the store."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import threading
from pathlib import Path

from sdgrpc.domain import UploadHeader
from sdgrpc.errors import FieldViolation, InvalidRequest
from sdgrpc.lora.store.upload_store import PARTIAL, UploadStore, as_storage_full


class IncomingFile:
    """Takes a file piece by piece; unless `commit` returns, nothing of it stays. Its methods block.

    `abort` may be called at any time from any thread, and again; it is quick.

    Raises:
        StorageFull: there is no room for it, or for another name of it.
        TooManyCalls: too many are on their way.

    """

    def __init__(self, store: UploadStore, header: UploadHeader) -> None:
        self._store, self.header = store, header
        self._digest = hashlib.sha256()
        self._written = 0
        self._lock = threading.Lock()
        self._ended = False
        store.claim(self, header)
        try:
            with as_storage_full():
                descriptor, path = tempfile.mkstemp(prefix=PARTIAL, dir=store.folder)
        except BaseException:
            store.release(self)
            raise
        self._path, self._file = Path(path), os.fdopen(descriptor, "wb")

    def write(self, chunk: bytes) -> None:
        """Append bytes.

        Raises:
            InvalidRequest: these are more than the header said.
            StorageFull: the budget or the disk is used up.

        """
        with self._lock:
            if self._ended:
                return
            self._written += len(chunk)
            if self._written > self.header.size:
                raise wrong("size_bytes", f"is {self.header.size}, but more bytes came")
            self._store.make_room(self, self._written)
            self._digest.update(chunk)
            with as_storage_full():
                self._file.write(chunk)

    def commit(self) -> None:
        """Verify and check the file, and put it into its place.

        Raises:
            InvalidRequest: the size or the hash is not what the header said.
            LoraError: the file is no LoRA for a base that is known; the message says why.
            StorageFull: the disk is full, or the content has too many names by now.

        """
        self._verify()
        with as_storage_full():
            self._file.flush()
            os.fsync(self._file.fileno())
        self._store.check(self._path, self.header.name)
        with self._lock, as_storage_full():
            if not self._ended:
                self._file.close()
                self._store.take(self._path, self.header)
                self._ended = True
                self._store.release(self)

    def abort(self) -> None:
        """Leave nothing behind; does nothing after `commit`."""
        with self._lock:
            if self._ended:
                return
            self._ended = True
            with contextlib.suppress(OSError):  # what could not be flushed is thrown away anyway
                self._file.close()
            self._path.unlink(missing_ok=True)
            self._store.release(self)

    def _verify(self) -> None:
        if self._written != self.header.size:
            raise wrong("size_bytes", f"is {self.header.size}, but {self._written} bytes came")
        if self._digest.hexdigest() != self.header.sha256:
            raise wrong("sha256", f"is not the content's, which is {self._digest.hexdigest()}")


def wrong(field: str, sentence: str) -> InvalidRequest:
    """The failure for a field of the header."""
    return InvalidRequest([FieldViolation(f"header.{field}", sentence)])
