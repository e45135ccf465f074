"""A replica's files: which it has, those from clients, and those from other replicas."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sdgrpc.domain import LoraInfo, LoraRef, ResidentLora, UploadHeader
from sdgrpc.engine.base import Upload
from sdgrpc.errors import LoraNotFound, SdgrpcError

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

    async def fused(self, model: str, loras: Sequence[LoraRef]) -> str:
        """Return the id of a set that is fused here; empty where it is not. No file is read for it."""
        return await asyncio.to_thread(self._fused, model, loras)

    def _fused(self, model: str, loras: Sequence[LoraRef]) -> str:
        try:
            wanted = Counter(self._member(ref) for ref in loras if ref.strength or ref.text_encoder_strength)
        except SdgrpcError:
            return ""
        for one in self._engine.status().resident_sets:
            if one.model == model and Counter(one.loras) == wanted:
                return one.set_id
        return ""

    def _member(self, ref: LoraRef) -> ResidentLora:
        """Name a member as the engine's status does; LoraNotFound also where its file was never read."""
        sha256 = ref.sha256.lower()
        if not sha256:
            library = self._engine.library
            if not library.is_known(ref):
                raise LoraNotFound(ref.label, "it was never read here")
            sha256 = library.find(ref).sha256
        return ResidentLora(sha256, ref.strength, ref.text_encoder_strength, ref.block_weights)

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
