"""An index of folders: which files there are, under which names.

A name from a request is only ever a key of this index, so no `..` or absolute path can lead outside. Links
that do are left out, unless the operator lets them be followed: a hub's snapshots are made of them.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sdgrpc.lora.dialects.adapt import read_config
from sdgrpc.lora.store.beside import INFO

logger = logging.getLogger(__name__)

SUFFIXES = frozenset({".safetensors", ".pt", ".pth", ".bin", ".ckpt"})
"""What is indexed. Pickles are too, so that asking for one says why it is refused instead of "not found"."""


@dataclass(frozen=True, slots=True)
class IndexedFile:
    """A file as it was when the folder was searched. Equal only while its content is (as far as times tell).

    `name` is relative to its folder, with `/` and without ending; `path` is real, without links, and `seen`
    is where the folder has it.
    """

    name: str
    path: Path
    size: int
    modified_ns: int
    changed_ns: int
    inode: int
    seen: Path

    @property
    def is_safetensors(self) -> bool:
        """Whether it is called so; of a link the folder's name counts."""
        return self.seen.suffix.lower() == ".safetensors"


class FolderIndex:
    """Names -> files of some folders and their sub-folders, kept up to date. Thread safe.

    Args:
        folders: searched in this order.
        follow_links: whether links count that lead out of the folders; if not each is logged once.

    """

    def __init__(self, folders: Sequence[Path], *, follow_links: bool = False) -> None:
        self._roots = [Path(folder).resolve() for folder in folders]
        self._follow_links = follow_links
        self._left_out: dict[Path, str] = {}
        self._logged: set[Path] = set()
        self._files: dict[str, IndexedFile] = {}
        self._stems: dict[str, list[IndexedFile]] = {}
        self._infos: list[Path] = []
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
            return [fresh for file in self._lookup(name) if (fresh := self._look(file.name, file.seen))]

    def left_out(self) -> list[tuple[str, str]]:
        """Return the links that the last search left out: name relative to its folder, and why."""
        with self._lock:
            found = []
            for path, reason in self._left_out.items():
                root = next(root for root in self._roots if path.is_relative_to(root))
                found.append((path.relative_to(root).as_posix(), reason))
            return sorted(found)

    def config_of(self, path: Path) -> str:
        """Return the text of a PEFT configuration beside a file that was found; empty where there is none.

        Where links are followed it is looked for beside the link, as in a hub's snapshot.
        """
        return read_config(self.seen(path), follow_links=self._follow_links)

    def seen(self, path: Path) -> Path:
        """Return where a folder has a file that was found, whose other files lie there too."""
        if not self._follow_links:
            return path
        with self._lock:
            return next((file.seen for file in self._files.values() if file.path == path), path)

    def infos(self) -> list[Path]:
        """Return the `.civitai.info` files that the last search saw, whether a LoRA is beside them or not."""
        with self._lock:
            return sorted(self._infos)

    def _lookup(self, name: str) -> list[IndexedFile]:
        file = self._files.get(name)
        return [file] if file else self._stems.get(name, [])

    def _is_stale(self) -> bool:
        try:
            return not self._seen or any(path.stat().st_mtime_ns != time for path, time in self._seen.items())
        except OSError:
            return True

    def _search(self) -> None:
        self._files, self._stems, self._seen, self._left_out = {}, {}, {}, {}
        self._infos = []
        for root in self._roots:
            for path in self._walk(root, root):
                relative = path.relative_to(root)
                file = self._look(relative.with_suffix("").as_posix(), path)
                if file is None:
                    self._leave_out(path)
                elif relative.as_posix() not in self._files:
                    self._add(relative, file)
        for path in self._left_out.keys() - self._logged:
            logger.warning("%s is left out: %s", path, self._left_out[path])
        self._logged |= self._left_out.keys()

    def _leave_out(self, path: Path) -> None:
        """Note a link that does not count; what is no link is only no file."""
        if path.is_symlink():
            self._left_out[path] = (
                "is a link that leads out of the folder; --follow-links (setting follow_links) takes it"
                if path.exists()
                else "is a link that leads to nothing"
            )

    def _add(self, relative: Path, file: IndexedFile) -> None:
        """Index a file with and without ending; safetensors goes before a pickle of the same name."""
        known = self._files.get(file.name)
        self._files[relative.as_posix()] = file
        if known is None or (file.is_safetensors and not known.is_safetensors):
            self._files[file.name] = file
            for stem in {relative.stem, relative.name}:
                others = [other for other in self._stems.get(stem, []) if other.name != file.name]
                self._stems[stem] = [*others, file]

    def _walk(self, root: Path, folder: Path) -> Iterator[Path]:
        """Yield the files below a folder; links out of the root are followed only where that is allowed."""
        real = folder.resolve()
        if real in self._seen:
            return  # a link that goes round in a circle
        if not (self._follow_links or real.is_relative_to(root)):
            self._leave_out(folder)
            return
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
            elif child.name.endswith(INFO):
                self._infos.append(path)

    def _look(self, name: str, path: Path) -> IndexedFile | None:
        """Stat a file; None if it is gone, no ordinary file, or a link that does not count."""
        try:
            real = path.resolve(strict=True)
            stat = real.stat()
        except (OSError, RuntimeError):  # RuntimeError: a link that leads to itself
            return None
        is_inside = self._follow_links or any(real.is_relative_to(root) for root in self._roots)
        if not real.is_file() or not is_inside:
            return None
        return IndexedFile(name, real, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, path)
