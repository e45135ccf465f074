"""The catalog's side of the fake engine: files that are only records, uploads that are only bytes."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from sdgrpc.domain import (
    EmbeddingInfo,
    LoraDetails,
    LoraInfo,
    LoraModuleInfo,
    LoraPage,
    LoraQuery,
    LoraRef,
    Prepared,
    UploadHeader,
)
from sdgrpc.errors import FieldViolation, InvalidRequest, LoraNotFound


def lora_info(name: str, **changes) -> LoraInfo:
    """A small LoRA for SD1.5."""
    values = {
        "name": name,
        "sha256": hashlib.sha256(name.encode()).hexdigest(),
        "size": 1234,
        "modified": 1_700_000_000.5,
        "base": "sd15",
        "algorithms": ("lora",),
        "rank_min": 4,
        "rank_max": 8,
        "trigger_words": ("ink",),
    }
    return LoraInfo(**{**values, **changes})


@dataclass
class FakeUpload:
    """Keeps what it gets; `ended` is set by the abort that ends every upload."""

    header: UploadHeader
    files: dict[str, LoraInfo]
    data: bytes = b""
    committed: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def write(self, chunk: bytes) -> None:
        self.data += chunk

    async def commit(self) -> None:
        if hashlib.sha256(self.data).hexdigest() != self.header.sha256:
            raise InvalidRequest([FieldViolation("header.sha256", "is not the content's")])
        self.committed = True
        self.files[self.header.name] = lora_info(
            self.header.name, sha256=self.header.sha256, size=self.header.size
        )

    def abort(self) -> None:
        self.ended.set()


class FakeCatalog:
    """What FakeEngine answers about LoRA files. `files` are by name; `uploads` all that were opened."""

    def __init__(self, names: Sequence[str]) -> None:
        self.files = {name: lora_info(name) for name in names}
        self.uploads: list[FakeUpload] = []
        self.opened = asyncio.Event()
        self.prepared: list[tuple[str, tuple[LoraRef, ...]]] = []
        self.callers: list[str] = []

    async def list_loras(self, query: LoraQuery) -> LoraPage:
        found = [
            info
            for name, info in sorted(self.files.items())
            if name > query.after and query.base in ("", info.base) and (info.fits or not query.fitting_only)
        ]
        return LoraPage(tuple(found[: query.limit]), more=len(found) > query.limit)

    async def list_embeddings(self, model: str) -> tuple[EmbeddingInfo, ...]:
        assert model == "fake"
        good = EmbeddingInfo("face", "a" * 64, 3072, 1_700_000_000.5, "sd15", 2)
        return good, EmbeddingInfo("large", "b" * 64, 4096, 1.0, "sdxl", 1, "it is for SDXL")

    async def get_lora(self, ref: LoraRef, model: str, *, include_modules: bool) -> LoraDetails:
        del model
        for info in self.files.values():
            if ref.name == info.name or ref.sha256 == info.sha256:
                module = LoraModuleInfo("unet", "conv_in", "lora", 4, None, 0.5)
                modules = (module,) if include_modules else ()
                return LoraDetails(info, 2, 1, ("a.b",), {"note": "lone \ud800"}, modules)
        raise LoraNotFound(ref.label, f"no LoRA {ref.label!r} here")

    async def prepare_loras(self, model: str, loras: Sequence[LoraRef], *, caller: str = "") -> Prepared:
        self.prepared.append((model, tuple(loras)))
        self.callers.append(caller)
        return Prepared((), "set", lora_set_cached=len(self.prepared) > 1)

    async def begin_upload(self, header: UploadHeader) -> FakeUpload | LoraInfo:
        for info in self.files.values():
            if info.sha256 == header.sha256:
                return info
        upload = FakeUpload(header, self.files)
        self.uploads.append(upload)
        self.opened.set()
        return upload
