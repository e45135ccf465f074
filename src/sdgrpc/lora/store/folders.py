"""An index of folders: which files there are, under which names.

A name from a request is only ever a key of this index, so no `..`, absolute path or link can lead outside.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

SUFFIXES = frozenset({".safetensors", ".pt", ".pth", ".bin", ".ckpt"})
"""What is indexed. Pickles are too, so that asking for one says why it is refused instead of "not found"."""


@dataclass(frozen=True, slots=True)
class IndexedFile:
    """A file as it was when the folder was searched. Equal only while its content is (as far as times tell).

    `name` is relative to its folder, with `/` and without ending; `path` is real, without links.
    """

    name: str
    path: Path
    size: int
    modified_ns: int
    changed_ns: int
    inode: int


class FolderIndex:
    """Names -> files of some folders and their sub-folders, kept up to date. Thread safe."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._roots = [Path(folder).resolve() for folder in folders]
        self._files: dict[str, IndexedFile] = {}
        self._stems: dict[str, list[IndexedFile]] = {}
        self._seen: dict[Path, int] = {}
        self._lock = threading.Lock()

    def files(self) -> list[IndexedFile]:
        """Search the folders and return every file once, by name."""
        with self._lock:
            self._search()
            unique = {file.path: file for file in self._files.values()}
            return sorted(unique.values(), key=lambda file: file.name)

    def find(self, name: str) -> list[IndexedFile]:
        """Return the file of that name, with or without ending; or all whose last part is that name."""
        with self._lock:
            if self._is_stale() or not self._lookup(name):
                self._search()
            return [fresh for file in self._lookup(name) if (fresh := self._look(file.name, file.path))]

    def _lookup(self, name: str) -> list[IndexedFile]:
        file = self._files.get(name)
        return [file] if file else self._stems.get(name, [])

    def _is_stale(self) -> bool:
        try:
            return not self._seen or any(path.stat().st_mtime_ns != time for path, time in self._seen.items())
        except OSError:
            return True

    def _search(self) -> None:
        self._files, self._stems, self._seen = {}, {}, {}
        for root in self._roots:
            for path in self._walk(root, root):
                relative = path.relative_to(root)
                file = self._look(relative.with_suffix("").as_posix(), path)
                if file is not None and relative.as_posix() not in self._files:
                    self._add(relative, file)

    def _add(self, relative: Path, file: IndexedFile) -> None:
        """Index a file with and without ending; safetensors goes before a pickle of the same name."""
        known = self._files.get(file.name)
        self._files[relative.as_posix()] = file
        if known is None or (known.path.suffix != ".safetensors" and file.path.suffix == ".safetensors"):
            self._files[file.name] = file
            for stem in {relative.stem, relative.name}:
                others = [other for other in self._stems.get(stem, []) if other.name != file.name]
                self._stems[stem] = [*others, file]

    def _walk(self, root: Path, folder: Path) -> Iterator[Path]:
        """Yield the files below a folder; links are followed only to what is inside the root."""
        real = folder.resolve()
        if real in self._seen or not real.is_relative_to(root):
            return  # seen before: a link that goes round in a circle
        try:
            self._seen[real] = real.stat().st_mtime_ns
            children = sorted(os.scandir(folder), key=lambda child: child.name)
        except OSError:
            return
        for child in children:
            path = Path(child.path)
            if path.is_dir():
                yield from self._walk(root, path)
            elif path.suffix.lower() in SUFFIXES:
                yield path

    def _look(self, name: str, path: Path) -> IndexedFile | None:
        """Stat a file; None if it is gone, no ordinary file, or a link to what is outside of the folders."""
        try:
            real = path.resolve(strict=True)
            stat = real.stat()
        except (OSError, RuntimeError):  # RuntimeError: a link that leads to itself
            return None
        if not real.is_file() or not any(real.is_relative_to(root) for root in self._roots):
            return None
        return IndexedFile(name, real, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
