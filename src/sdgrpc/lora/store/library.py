"""The LoRA files of some folders, found by name or hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from sdgrpc.domain import LoraRef, UploadHeader
from sdgrpc.errors import LoraNotFound, LoraUnsupported, UploadsOff
from sdgrpc.lora.files.hashing import Hashes
from sdgrpc.lora.files.reading import DEFAULT_LIMITS, ReadLimits
from sdgrpc.lora.store.air import Air
from sdgrpc.lora.store.beside import NOTHING, Beside, BesideFiles
from sdgrpc.lora.store.by_air import by_air
from sdgrpc.lora.store.contents import Contents, FoundLora
from sdgrpc.lora.store.folders import FolderIndex, IndexedFile
from sdgrpc.lora.store.near_names import suggestion
from sdgrpc.lora.store.parsed import ParsedFiles
from sdgrpc.lora.store.upload import IncomingFile, wrong
from sdgrpc.lora.store.upload_store import UploadStore

__all__ = ["FoundLora", "LoraEntry", "LoraLibrary"]


@dataclass(frozen=True, slots=True)
class LoraEntry:
    """One file of the library: its name as requests use it, where it is, and its size in bytes."""

    name: str
    path: Path
    size: int


class LoraLibrary:
    """Finds LoRA files by name, hash or content, and keeps those that were parsed last. Thread safe.

    Args:
        folders: searched with their sub-folders; of two files of the same name the first folder's counts.
        follow_links: whether links count that lead out of the folders.
        allow_inline: whether requests may bring a file themselves.
        limits: what a file may claim at most.
        cache_bytes: how much the parsed files may hold together, so that another strength costs no reading.
        uploads: files that clients brought; a name means a folder's file before an uploaded one.

    """

    def __init__(
        self,
        folders: Sequence[Path],
        *,
        follow_links: bool = False,
        allow_inline: bool = False,
        limits: ReadLimits = DEFAULT_LIMITS,
        cache_bytes: int = 512 << 20,
        uploads: UploadStore | None = None,
    ) -> None:
        self._uploads = uploads
        self._index = FolderIndex(folders, follow_links=follow_links)
        self._beside = BesideFiles(follow_links=follow_links)
        self._allow_inline = allow_inline
        self._contents = Contents(limits, cache_bytes)

    @property
    def parsed(self) -> ParsedFiles:
        """The files that are parsed now."""
        return self._contents.parsed

    def entries(self) -> list[LoraEntry]:
        """Return the safetensors files of the folders and the uploads, by name."""
        found = {
            file.name: LoraEntry(file.name, file.path, file.size)
            for file in self._index.files()
            if file.is_safetensors
        }
        for name, path in self._uploads.listed().items() if self._uploads else ():
            try:
                found.setdefault(name, LoraEntry(name, path, path.stat().st_size))
            except OSError:
                continue  # evicted just now
        return [found[name] for name in sorted(found)]

    def entry_of(self, file: FoundLora) -> LoraEntry:
        """Return where a file that was found lies.

        Raises:
            LoraNotFound: it is gone, or was brought by a request.

        """
        if file.path is None:
            raise LoraNotFound(file.name, "a file that a request brings is in no folder")
        try:
            return LoraEntry(file.name, file.path, file.path.stat().st_size)
        except OSError as error:
            raise LoraNotFound(file.name, f"LoRA {file.name!r} is gone: {error.strerror}") from error

    def config_of(self, entry: LoraEntry) -> str:
        """Return the text of a PEFT configuration beside a file; empty where there is none."""
        return self._index.config_of(entry.path)

    def beside(self, entry: LoraEntry) -> Beside:
        """Return what lies beside a file of a folder; nothing does beside an upload."""
        if self._uploads is not None and entry.path.parent == self._uploads.folder:
            return NOTHING
        return self._beside.of(self._index.seen(entry.path))

    def picture(self, path: Path, most_bytes: int) -> bytes:
        """Return the file of a picture that lies beside a LoRA; raises OSError."""
        return self._beside.picture(path, most_bytes)

    def hashes_of_entry(self, entry: LoraEntry) -> Hashes:
        """Return the hashes of a file's content; blocks while it is read, once as long as it stays the same.

        Raises:
            LoraNotFound: it is gone.

        """
        if self._uploads is not None and entry.path.parent == self._uploads.folder:
            return self._contents.hashes_of_upload(entry.path, entry.name)
        for file in self._index.find(entry.name):
            if file.path == entry.path:
                return self._contents.hashes(file)
        raise LoraNotFound(entry.name, f"LoRA {entry.name!r} is gone")

    @contextmanager
    def in_use(self, files: Sequence[FoundLora]) -> Iterator[None]:
        """Keep uploads from being evicted inside the block.

        Raises:
            LoraNotFound: one was evicted since it was found.

        """
        if self._uploads is None:
            yield
            return
        uploaded = [file for file in files if file.path and file.path.parent == self._uploads.folder]
        with self._uploads.pinned([file.sha256 for file in uploaded]):
            for file in uploaded:
                if self._uploads.find(file.sha256) is None:
                    raise LoraNotFound(
                        file.name, f"the upload {file.name!r} was evicted just now; upload it again"
                    )
            yield

    def begin_upload(self, header: UploadHeader, max_bytes: int) -> IncomingFile | FoundLora:
        """Open an upload of at most `max_bytes`; or return the file if its content is there, now so called.

        Raises:
            UploadsOff: the operator allows none.
            InvalidRequest: it is too large, or its name is that of a file in the folders.
            StorageFull, TooManyCalls: there is no room for it, or for another name of it.

        """
        if self._uploads is None:
            raise UploadsOff(
                "this server takes no uploads; its operator can allow them with --upload-dir FOLDER"
            )
        most = min(max_bytes, self._uploads.budget_bytes)
        if header.size > most:
            raise wrong("size_bytes", f"{header.size} is above {most}")
        try:
            known = self._by_hash(header.sha256)
        except LoraNotFound:
            known = None
        if known is not None and known.name == header.name:
            return known
        if self._index.find(header.name):
            raise wrong("name", f"{header.name!r} is a file of this server's folders; choose another")
        if known is None:
            return IncomingFile(self._uploads, header)
        self._uploads.name(header.name, header.sha256)
        return replace(known, name=header.name)

    def close(self) -> None:
        """Let go of the folder of uploads. May be called twice."""
        if self._uploads is not None:
            self._uploads.close()

    def find_all(self, refs: Sequence[LoraRef]) -> list[FoundLora]:
        """Return the file of each; raises as `find`."""
        return [self.find(ref) for ref in refs]

    def is_known(self, ref: LoraRef) -> bool:
        """Tell whether `find` answers without reading a file, be it that there is none."""
        found = [] if ref.content or ref.sha256 else self._index.find(ref.name)
        if ref.sha256 and not (self._uploads is not None and self._uploads.find(ref.sha256.lower())):
            found = self._index.files()
        return all(map(self._contents.knows, found))

    def find(self, ref: LoraRef) -> FoundLora:
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
        if air := Air.parse(ref.name):
            return by_air(ref.name, air, self._index, self._beside, self._contents.hashes, self.find)
        raise LoraNotFound(
            ref.name,
            f"no LoRA {ref.name!r} here{suggestion(ref.name, [entry.name for entry in self.entries()])}",
        )

    def _file(self, file: IndexedFile) -> FoundLora:
        return self._contents.file(file, self._index.config_of(file.path))

    def _uploaded(self, name: str) -> FoundLora | None:
        """Return the file that an upload called so, wherever its content is."""
        if self._uploads is None:
            return None
        stem = name.removesuffix(".safetensors")
        sha256 = self._uploads.hash_of(stem) or (stem if self._uploads.find(stem) else None)
        try:
            return self._by_hash(sha256, stem) if sha256 else None
        except LoraNotFound:
            return None

    def _inline(self, ref: LoraRef) -> FoundLora:
        if not self._allow_inline:
            raise LoraUnsupported(
                ref.label,
                "this server takes no files inside requests; it would have to be started to allow them",
            )
        sha256 = hashlib.sha256(ref.content).hexdigest()
        return self._contents.loadable(ref.label, sha256, ref.content)

    def _by_hash(self, sha256: str, name: str = "") -> FoundLora:
        if self._uploads is not None and (path := self._uploads.find(sha256)):
            return self._contents.loadable(name or self._uploads.name_of(sha256), sha256, path)
        for file in self._index.files():
            if self._contents.hashes(file).sha256 == sha256:
                return self._file(file)
        raise LoraNotFound(sha256, f"no LoRA with the SHA-256 {sha256} here")
