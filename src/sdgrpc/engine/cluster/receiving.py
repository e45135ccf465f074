"""A replica's side of uploads: files from clients, and from other replicas."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sdgrpc.domain import LoraInfo, LoraRef, UploadHeader
from sdgrpc.engine.base import Upload
from sdgrpc.errors import SdgrpcError

if TYPE_CHECKING:
    from sdgrpc.engine.local import LocalEngine

CHUNK_BYTES = 4 << 20


class Receiving:
    """The uploads that are on their way to one engine, by a number that the front door gives each."""

    def __init__(self, engine: LocalEngine) -> None:
        self._engine = engine
        self._open: dict[str, Upload] = {}

    async def begin(self, number: str, header: UploadHeader) -> LoraInfo | None:
        """Open an upload; return the file if it is here already."""
        begun = await self._engine.begin_upload(header)
        if isinstance(begun, LoraInfo):
            return begun
        self._open[number] = begun
        return None

    async def write(self, number: str, chunk: bytes) -> None:
        """See `Upload.write`."""
        await self._open[number].write(chunk)

    async def commit(self, number: str) -> None:
        """See `Upload.commit`."""
        await self._open[number].commit()

    async def abort(self, number: str) -> None:
        """See `Upload.abort`; forgets the upload, also one that was kept."""
        if (upload := self._open.pop(number, None)) is not None:
            upload.abort()

    async def has(self, ref: LoraRef) -> bool:
        """Tell whether a file is here."""
        try:
            await asyncio.to_thread(self._engine.library.find, ref)
        except SdgrpcError:
            return False
        return True

    async def content_of(self, ref: LoraRef) -> tuple[UploadHeader, bytes] | None:
        """Return a file that is here, with its name and hash; None if there is none."""
        library = self._engine.library
        try:
            found = await asyncio.to_thread(library.find, ref)
            entry = library.entry_of(found)
            content = await asyncio.to_thread(entry.path.read_bytes)
        except (SdgrpcError, OSError):
            return None
        return UploadHeader(ref.name or entry.name, found.sha256, len(content)), content

    async def keep(self, header: UploadHeader, content: bytes) -> bool:
        """Take a file of another replica; tell whether it is here now."""
        try:
            begun = await self._engine.begin_upload(header)
        except SdgrpcError:
            return False
        if isinstance(begun, LoraInfo):
            return True
        try:
            for start in range(0, len(content), CHUNK_BYTES):
                await begun.write(content[start : start + CHUNK_BYTES])
            await begun.commit()
        except SdgrpcError:
            return False
        finally:
            begun.abort()
        return await self.has(LoraRef(sha256=header.sha256))
