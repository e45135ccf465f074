"""SHA-256 of large files, each computed once and kept in a file as long as size, time and inode stay."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sdgrpc.regular_files import open_regular, read_regular

NAME = "model-hashes.json"
PIECE = 4 << 20
MAX_CACHE_BYTES = 16 << 20

Fingerprint = tuple[int, int, int]
"""Size, time of the last change in nanoseconds, inode."""


class FileHashes:
    """Hashes files; one thread may use it. With a `folder`, which is made, hashes outlive the process.

    What of the cache's file cannot be read counts as not there, and what cannot be written is not kept.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._cache = None if folder is None else folder / NAME

    def sha256(self, path: Path, is_unwanted: Callable[[], bool] = lambda: False) -> str:
        """Return a file's hash in hex; `is_unwanted` is asked between pieces of it and ends it early.

        Empty where it was ended, or the file was written meanwhile.

        Raises:
            OSError: it cannot be read, or is no regular file.

        """
        with open_regular(path) as file:
            before = _fingerprint(file.fileno())
            if known := self._known(path, before):
                return known
            digest = hashlib.sha256()
            while piece := file.read(PIECE):
                if is_unwanted():
                    return ""
                digest.update(piece)
            if _fingerprint(file.fileno()) != before:
                return ""
        self._keep(path, before, digest.hexdigest())
        return digest.hexdigest()

    def _known(self, path: Path, fingerprint: Fingerprint) -> str:
        entry = self._read().get(str(path.resolve()))
        if not isinstance(entry, dict) or entry.get("file") != list(fingerprint):
            return ""
        known = entry.get("sha256")
        return known if isinstance(known, str) and len(known) == 64 else ""

    def _read(self) -> dict[str, Any]:
        if self._cache is None:
            return {}
        try:
            entries = json.loads(read_regular(self._cache, MAX_CACHE_BYTES))
        except (OSError, ValueError):
            return {}
        return entries if isinstance(entries, dict) else {}

    def _keep(self, path: Path, fingerprint: Fingerprint, sha256: str) -> None:
        """Add an entry to the file, which is replaced as a whole: other servers may read and write it."""
        if self._cache is None:
            return
        entries = self._read() | {str(path.resolve()): {"file": list(fingerprint), "sha256": sha256}}
        with contextlib.suppress(OSError):
            self._cache.parent.mkdir(parents=True, exist_ok=True)
            descriptor, made = tempfile.mkstemp(prefix=f"{NAME}.", dir=self._cache.parent)
            try:
                with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                    json.dump(entries, file, indent=1)
                Path(made).replace(self._cache)
            except OSError:
                Path(made).unlink(missing_ok=True)


def _fingerprint(descriptor: int) -> Fingerprint:
    stat = os.fstat(descriptor)
    return stat.st_size, stat.st_mtime_ns, stat.st_ino
