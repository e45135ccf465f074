"""What LoRA files hold: hashed once as long as they stay the same, read and parsed once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from sdgrpc.errors import LoraChanged, LoraError, LoraMalformed, LoraNotFound
from sdgrpc.lora.dialects.adapt import read_adapter
from sdgrpc.lora.dialects.adapter import Adapter
from sdgrpc.lora.files import reading
from sdgrpc.lora.files.hashing import Hashes
from sdgrpc.lora.files.reading import ReadLimits
from sdgrpc.lora.store.folders import IndexedFile
from sdgrpc.lora.store.parsed import ParsedFiles
from sdgrpc.machine.keyed_locks import KeyedLocks

Alive = Callable[[], None]
"""Called while a file is read; what it raises ends the reading."""


def _nothing(_: object = None) -> None:
    """Read nothing ahead, or let the reading go on."""


@dataclass(frozen=True, slots=True)
class FoundLora:
    """A file that a request named. `sha256` is that of the content that `adapter` will return.

    `config` is the hash of a PEFT configuration beside it, which holds the alpha; empty where there is none.
    `nbytes` is the size of what `read_ahead` reads, which does as `load` and tells how it goes on.
    """

    name: str
    sha256: str
    load: Callable[[], Adapter] = field(repr=False, compare=False)
    path: Path | None = None
    config: str = ""
    nbytes: int = field(default=0, compare=False)
    read_ahead: Callable[[Alive], object] = field(default=_nothing, repr=False, compare=False)

    @property
    def identity(self) -> str:
        """What tells this content from any other: the file's hash and that of its `adapter_config.json`."""
        return self.sha256 + self.config

    def adapter(self) -> Adapter:
        """Read, check and parse the file, or return what an earlier call made of the same content.

        Raises:
            LoraMalformed, LoraUnsupported, LoraIncompatible: the file cannot be used; the message says why.

        """
        return self.load()


class Contents:
    """Hashes and parses files, each once, and keeps `cache_bytes` of those parsed last. Thread safe.

    A file is read by one thread at a time, however many want it; no file waits for another's reading.
    """

    def __init__(self, limits: ReadLimits, cache_bytes: int) -> None:
        self._limits = limits
        self.parsed = ParsedFiles(cache_bytes)
        self._hashes: dict[Path, tuple[IndexedFile, Hashes]] = {}
        self._uploads: dict[Path, Hashes] = {}
        self._reading = KeyedLocks()

    def file(self, file: IndexedFile, config: str) -> FoundLora:
        """Return a file of a folder, hashed now if it is new; blocks meanwhile.

        `config` is the text of a PEFT configuration beside it; empty for none.

        Raises:
            LoraNotFound: it cannot be read.
            LoraChanged: it was written while it was read.

        """
        known = self._known(file)
        if known is None:
            with self._reading.of(file.path):
                known = self._known(file) or self._read_first(file, config)
        return self.loadable(file.name, known.sha256, file.path, config=config)

    def knows(self, file: IndexedFile) -> bool:
        """Tell whether a file has been read since it is as it is."""
        return self._known(file) is not None

    def hashes(self, file: IndexedFile) -> Hashes:
        """Hash a file, once as long as it stays the same.

        Raises:
            LoraNotFound, LoraChanged: as `file`.

        """
        if known := self._known(file):
            return known
        with self._reading.of(file.path):
            return self._known(file) or self._hash(file)

    def hashes_of_upload(self, path: Path, name: str) -> Hashes:
        """Hash an uploaded file, once: what is there under a hash never changes.

        Raises:
            LoraNotFound: it was evicted.

        """
        if path not in self._uploads:
            try:
                self._uploads[path] = reading.hashes(path, name, expected=path.stem)
            except OSError as error:
                raise LoraNotFound(name, f"LoRA {name!r} cannot be read: {error.strerror}") from error
        return self._uploads[path]

    def _read_first(self, file: IndexedFile, config: str) -> Hashes:
        """Read, hash and parse a file that is new in one go; one that is refused is only hashed."""
        try:
            adapter = read_adapter(file.path, file.name, self._limits, config=config)
        except LoraChanged:
            raise
        except (LoraError, OSError):
            return self._hash(file)  # what is wrong will be said when it is used
        found = Hashes(adapter.sha256, adapter.autov3)
        self._hashes[file.path] = file, found
        self.parsed.put(adapter.sha256 + hash_of(config), adapter)
        return found

    def _known(self, file: IndexedFile) -> Hashes | None:
        """Return the hashes of a file that has the same size and times as when it was hashed."""
        known = self._hashes.get(file.path)
        return known[1] if known is not None and known[0] == file else None

    def _hash(self, file: IndexedFile) -> Hashes:
        try:
            found = reading.hashes(file.path, file.name)
        except OSError as error:
            raise LoraNotFound(file.name, f"LoRA {file.name!r} cannot be read: {error.strerror}") from error
        self._hashes[file.path] = file, found
        return found

    def loadable(self, name: str, sha256: str, source: Path | bytes, *, config: str = "") -> FoundLora:
        """Return a file, or content, that has this hash; whether it still has is checked when it is read."""
        config_hash = hash_of(config)

        def load(alive: Alive = _nothing) -> Adapter:
            read = partial(self._read, name, sha256, source, config, alive)
            return self.parsed.get(sha256 + config_hash, read)

        path = source if isinstance(source, Path) else None
        return FoundLora(name, sha256, load, path, config_hash, _size_of(source), load)

    def _read(self, name: str, sha256: str, source: Path | bytes, config: str, alive: Alive) -> Adapter:
        try:
            adapter = read_adapter(source, name, self._limits, config=config, expected=sha256, alive=alive)
        except OSError as error:
            raise LoraMalformed(name, f"cannot be read: {error.strerror}") from error
        if adapter.sha256 != sha256:
            raise LoraChanged(name, "the file was changed after the request named it; send the request again")
        return adapter


def _size_of(source: Path | bytes) -> int:
    """The bytes of a file or content; 0 where the file is gone."""
    try:
        return source.stat().st_size if isinstance(source, Path) else len(source)
    except OSError:
        return 0


def hash_of(config: str) -> str:
    """Return what tells configurations apart; nothing for none."""
    return hashlib.sha256(config.encode()).hexdigest() if config else ""
