"""Which names uploads were given, kept in a file beside them."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Collection, ItemsView
from pathlib import Path

from sdgrpc.errors import StorageFull
from sdgrpc.regular_files import read_regular

FILE = "names.json"
MAX_FILE_BYTES = 64 << 20
"""More than `MAX_NAMES` of the longest names take."""

MAX_NAMES = 10_000
MAX_NAMES_OF_ONE = 100
"""How many names there may be, and of one content: each is written again at every change."""


class StoredNames:
    """Names -> hashes, written at every change. Whoever uses it holds a lock.

    A name stays when its file is dropped only if somebody else may have the content: `drop` forgets it.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        try:
            read = json.loads(read_regular(self._path, MAX_FILE_BYTES, follow_links=False))
        except (OSError, ValueError, RecursionError):
            read = {}  # none yet, or not ours: the files are still found by their hashes
        found = read.items() if isinstance(read, dict) else ()
        self._names: dict[str, str] = {
            name: sha256 for name, sha256 in found if isinstance(name, str) and isinstance(sha256, str)
        }

    def get(self, name: str) -> str | None:
        """Return the hash that a name means."""
        return self._names.get(name)

    def items(self) -> ItemsView[str, str]:
        """Return names and hashes."""
        return self._names.items()

    def values(self) -> Collection[str]:
        """Return the hashes that have a name."""
        return self._names.values()

    def check_room(self, name: str, sha256: str) -> None:
        """Refuse what `give` could not take.

        Raises:
            StorageFull: the content has as many names as one may have, or there are as many as may be.

        """
        if self._names.get(name) == sha256:
            return
        counts = Counter(self._names.values())
        if counts[sha256] >= MAX_NAMES_OF_ONE:
            known = min(name for name, other in self._names.items() if other == sha256)
            raise StorageFull(
                f"this content has {MAX_NAMES_OF_ONE} names already, the most that one may have; "
                f"use one of them, such as {known!r}"
            )
        if name not in self._names and len(self._names) >= MAX_NAMES:
            raise StorageFull(
                f"the uploads have {MAX_NAMES:,} names already, the most that there may be; "
                "use a name that is there"
            )

    def give(self, name: str, sha256: str) -> None:
        """Let a name mean a hash from now on; raises what `check_room` does."""
        self.check_room(name, sha256)
        if self._names.get(name) != sha256:
            self._names[name] = sha256
            self._write()

    def drop(self, sha256: str) -> None:
        """Forget the names of a hash."""
        kept = {name: other for name, other in self._names.items() if other != sha256}
        if kept != self._names:
            self._names = kept
            self._write()

    def _write(self) -> None:
        partial = self._path.with_name(f".partial-{FILE}")
        with partial.open("w", encoding="utf-8") as file:
            json.dump(self._names, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._path)
        sync_folder(self._path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a crash."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
