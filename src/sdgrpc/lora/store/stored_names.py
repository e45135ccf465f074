"""Which names uploads were given, kept in a file beside them."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, ItemsView
from pathlib import Path

FILE = "names.json"


class StoredNames:
    """Names -> hashes, written at every change. Whoever uses it holds a lock.

    A name stays when its file is dropped only if somebody else may have the content: `drop` forgets it.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        try:
            read = json.loads(self._path.read_text("utf-8"))
        except (OSError, ValueError):  # none yet, or not ours: the files are still found by their hashes
            read = {}
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

    def give(self, name: str, sha256: str) -> None:
        """Let a name mean a hash from now on."""
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
