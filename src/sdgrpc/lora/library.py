"""The LoRA files of some folders, found by name or hash, read and parsed once."""

from __future__ import annotations

import difflib
import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sdgrpc.domain import LoraRef
from sdgrpc.errors import LoraError, LoraMalformed, LoraNotFound, LoraUnsupported
from sdgrpc.lora import reading
from sdgrpc.lora.adapter import Adapter
from sdgrpc.lora.detect import adapt_own, reject_foreign
from sdgrpc.lora.folders import FolderIndex, IndexedFile
from sdgrpc.lora.parsed import ParsedFiles
from sdgrpc.lora.peft import PeftConfig
from sdgrpc.lora.reading import DEFAULT_LIMITS, ReadLimits
from sdgrpc.lora.uploads import UploadStore

CONFIG_NAME = "adapter_config.json"
MAX_CONFIG_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class LoraEntry:
    """One file of the library: its name as requests use it, where it is, and its size in bytes."""

    name: str
    path: Path
    size: int


@dataclass(frozen=True, slots=True)
class LoraFile:
    """A file that a request named. `sha256` is that of the content that `adapter` will return.

    `config` is the hash of a PEFT configuration beside it, which holds the alpha; empty where there is none.
    """

    name: str
    sha256: str
    load: Callable[[], Adapter] = field(repr=False, compare=False)
    path: Path | None = None
    config: str = ""

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


class LoraLibrary:
    """Finds LoRA files by name, hash or content, and keeps those that were parsed last. Thread safe.

    Args:
        folders: searched with their sub-folders; of two files of the same name the first folder's counts.
        allow_inline: whether requests may bring a file themselves.
        limits: what a file may claim at most.
        cache_bytes: how much the parsed files may hold together, so that another strength costs no reading.
        uploads: files that clients brought; a name means a folder's file before an uploaded one.

    """

    def __init__(
        self,
        folders: Sequence[Path],
        *,
        allow_inline: bool = False,
        limits: ReadLimits = DEFAULT_LIMITS,
        cache_bytes: int = 512 << 20,
        uploads: UploadStore | None = None,
    ) -> None:
        self.uploads = uploads
        self._index = FolderIndex(folders)
        self._allow_inline, self._limits = allow_inline, limits
        self._parsed = ParsedFiles(cache_bytes)
        self._hashes: dict[Path, tuple[IndexedFile, str]] = {}
        self._first_read = threading.Lock()

    def entries(self) -> list[LoraEntry]:
        """Return the safetensors files of the folders and the uploads, by name."""
        found = {
            file.name: LoraEntry(file.name, file.path, file.size)
            for file in self._index.files()
            if file.path.suffix.lower() == ".safetensors"
        }
        for name, path in self.uploads.listed().items() if self.uploads else ():
            try:
                found.setdefault(name, LoraEntry(name, path, path.stat().st_size))
            except OSError:
                continue  # evicted just now
        return [found[name] for name in sorted(found)]

    def entry(self, ref: LoraRef) -> LoraEntry:
        """Return the file that a name or hash means; raises what `find` raises."""
        file = self.find(ref)
        if file.path is None:
            raise LoraNotFound(ref.label, "a file that a request brings is in no folder")
        try:
            return LoraEntry(file.name, file.path, file.path.stat().st_size)
        except OSError as error:
            raise LoraNotFound(file.name, f"LoRA {file.name!r} is gone: {error.strerror}") from error

    def hash_of_entry(self, entry: LoraEntry) -> str:
        """Return the hash of a file's content; blocks while it is read, once as long as it stays the same.

        Raises:
            LoraNotFound: it is gone.

        """
        if self.uploads is not None and entry.path.parent == self.uploads.folder:
            return entry.path.stem
        for file in self._index.find(entry.name):
            if file.path == entry.path:
                return self._hash(file)
        raise LoraNotFound(entry.name, f"LoRA {entry.name!r} is gone")

    @contextmanager
    def in_use(self, files: Sequence[LoraFile]) -> Iterator[None]:
        """Keep uploads from being evicted inside the block.

        Raises:
            LoraNotFound: one was evicted since it was found.

        """
        if self.uploads is None:
            yield
            return
        uploaded = [file for file in files if file.path and file.path.parent == self.uploads.folder]
        with self.uploads.pinned([file.sha256 for file in uploaded]):
            for file in uploaded:
                if self.uploads.find(file.sha256) is None:
                    raise LoraNotFound(
                        file.name, f"the upload {file.name!r} was evicted just now; upload it again"
                    )
            yield

    def has_name(self, name: str) -> bool:
        """Tell whether a folder, not an upload, has a file of that name."""
        return bool(self._index.find(name))

    def find(self, ref: LoraRef) -> LoraFile:
        """Return the file that a request means. Blocks while folders are searched and the file is hashed.

        Raises:
            LoraNotFound: no such name or hash; near names are suggested.
            LoraUnsupported: the request brings a file and this library takes none.

        """
        if ref.content:
            return self._inline(ref)
        if ref.sha256:
            return self._by_hash(ref.sha256.lower())
        found = self._index.find(ref.name)
        if len(found) == 1:
            return self._file(found[0])
        if found:
            names = ", ".join(repr(file.name) for file in found[:5])
            raise LoraNotFound(
                ref.name, f"several LoRAs are called {ref.name!r}: {names}; give the whole name"
            )
        if uploaded := self._uploaded(ref.name):
            return uploaded
        raise LoraNotFound(ref.name, f"no LoRA {ref.name!r} here{self._suggest(ref.name)}")

    def _uploaded(self, name: str) -> LoraFile | None:
        """Return the file that an upload called so, wherever its content is."""
        if self.uploads is None:
            return None
        stem = name.removesuffix(".safetensors")
        sha256 = self.uploads.names.get(stem) or (stem if self.uploads.find(stem) else None)
        try:
            return self._by_hash(sha256, stem) if sha256 else None
        except LoraNotFound:
            return None

    def _suggest(self, name: str) -> str:
        names = [entry.name for entry in self.entries()]
        wanted = stem_of(name)
        near = [candidate for candidate in names if wanted and wanted in stem_of(candidate)]
        if not near:
            close = difflib.get_close_matches(wanted, map(stem_of, names), n=3, cutoff=0.5)
            near = [candidate for candidate in names if stem_of(candidate) in close]
        near = near[:3]
        return (
            f"; did you mean {' or '.join(map(repr, near))}?" if near else f"; there are {len(names)} others"
        )

    def _inline(self, ref: LoraRef) -> LoraFile:
        if not self._allow_inline:
            raise LoraUnsupported(
                ref.label,
                "this server takes no files inside requests; it would have to be started to allow them",
            )
        sha256 = hashlib.sha256(ref.content).hexdigest()
        return self._loadable(ref.label, sha256, ref.content)

    def _by_hash(self, sha256: str, name: str = "") -> LoraFile:
        if self.uploads is not None and (path := self.uploads.find(sha256)):
            return self._loadable(name or self._name_of(sha256), sha256, path)
        for file in self._index.files():
            if self._hash(file) == sha256:
                return self._file(file)
        raise LoraNotFound(sha256, f"no LoRA with the SHA-256 {sha256} here")

    def _name_of(self, sha256: str) -> str:
        """Return an upload's own name, or its hash."""
        items = self.uploads.names.items() if self.uploads else ()
        return min((name for name, other in list(items) if other == sha256), default=sha256)

    def _file(self, file: IndexedFile) -> LoraFile:
        config = read_config(file.path)
        sha256 = self._known_hash(file)
        if sha256 is None:
            with self._first_read:
                sha256 = self._known_hash(file) or self._read_first(file, config)
        return self._loadable(file.name, sha256, file.path, config=config)

    def _read_first(self, file: IndexedFile, config: str) -> str:
        """Read, hash and parse a file that is new in one go; one that is refused is only hashed."""
        try:
            content = reading.read(file.path, file.name, self._limits, reject_foreign)
            adapter = adapt_own(content, PeftConfig.from_json(config))
        except (LoraError, OSError):
            return self._hash(file)  # what is wrong will be said when it is used
        self._hashes[file.path] = file, content.sha256
        self._parsed.put(content.sha256 + hash_of(config), adapter)
        return content.sha256

    def _known_hash(self, file: IndexedFile) -> str | None:
        """Return the hash of a file that has the same size and times as when it was hashed."""
        known = self._hashes.get(file.path)
        return known[1] if known is not None and known[0] == file else None

    def _hash(self, file: IndexedFile) -> str:
        """Hash a file, once as long as it stays the same."""
        if known := self._known_hash(file):
            return known
        try:
            sha256 = reading.sha256(file.path)
        except OSError as error:
            raise LoraNotFound(file.name, f"LoRA {file.name!r} cannot be read: {error.strerror}") from error
        self._hashes[file.path] = file, sha256
        return sha256

    def _loadable(self, name: str, sha256: str, source: Path | bytes, *, config: str = "") -> LoraFile:
        config_hash = hash_of(config)

        def load() -> Adapter:
            return self._parsed.get(sha256 + config_hash, lambda: self._read(name, sha256, source, config))

        return LoraFile(name, sha256, load, source if isinstance(source, Path) else None, config_hash)

    def _read(self, name: str, sha256: str, source: Path | bytes, config: str) -> Adapter:
        try:
            file = reading.read(source, name, self._limits, reject_foreign)
        except OSError as error:
            raise LoraMalformed(name, f"cannot be read: {error.strerror}") from error
        if file.sha256 != sha256:
            raise LoraMalformed(
                name, "the file was changed after the request named it; send the request again"
            )
        return adapt_own(file, PeftConfig.from_json(config))


def read_config(path: Path) -> str:
    """Return the text of a PEFT configuration beside a file; empty where there is none that can be read."""
    config = path.parent / CONFIG_NAME
    try:
        if config.is_symlink() or config.stat().st_size > MAX_CONFIG_BYTES:
            return ""
        return config.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def hash_of(config: str) -> str:
    """Return what tells configurations apart; nothing for none."""
    return hashlib.sha256(config.encode()).hexdigest() if config else ""


def stem_of(name: str) -> str:
    """Return the last part of a name, in lower case, without the ending."""
    return name.rpartition("/")[2].lower().removesuffix(".safetensors")
