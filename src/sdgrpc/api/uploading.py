"""UploadLora: a header, then chunks, into an upload of the engine's."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from google.protobuf.message import Message
from grpc import aio

from sdgrpc.api.calls.call import current
from sdgrpc.api.catalog_rules import judge
from sdgrpc.api.field_rules import Table
from sdgrpc.api.loras.files import lora_file
from sdgrpc.domain import LoraInfo, LoraRef, UploadHeader
from sdgrpc.engine.base import Engine, Upload
from sdgrpc.errors import FieldViolation, InvalidRequest, UploadInterrupted
from sdgrpc.v1 import catalog_pb2 as pb

PATIENCE_SECONDS = 60.0
"""How long nothing may come, and how long a client may be slower than the least rate."""

Context = aio.ServicerContext[Any, Any]


class Sender:
    """The client of one upload: what it sends, and how long it was waited for."""

    def __init__(self, context: Context, least_rate: int) -> None:
        self._context, self._least_rate = context, least_rate
        self._received, self._waited = 0, 0.0

    async def next(self) -> pb.UploadLoraRequest | None:
        """Return the next message; None at the end of what the client sends.

        Raises:
            UploadInterrupted: nothing came for a minute, or over all less than the least rate and a minute
                allow. The time that the server takes itself does not count.

        """
        loop = asyncio.get_running_loop()
        allowed, why = PATIENCE_SECONDS, f"nothing came for {PATIENCE_SECONDS:.0f} s"
        if self._least_rate:
            left = PATIENCE_SECONDS + self._received / self._least_rate - self._waited
            if left < allowed:
                allowed, why = left, f"it came slower than {self._least_rate:,} bytes a second"
        started = loop.time()
        try:
            async with asyncio.timeout(allowed):
                part: pb.UploadLoraRequest | object = await self._context.read()
        except TimeoutError:
            raise UploadInterrupted(f"{why}; nothing of the upload was kept") from None
        self._waited += loop.time() - started
        if not isinstance(part, pb.UploadLoraRequest):
            return None
        self._received += len(part.chunk)
        current().upload_bytes += len(part.chunk)
        return part


async def receive(
    context: Context, engine: Engine, tables: Mapping[type[Message], Table], least_rate: int
) -> pb.UploadLoraResponse:
    """Take a file, or say at once that it is there. However the call ends otherwise, nothing of it stays.

    `least_rate` is how many bytes a second a client must send; 0 is no bound.
    """
    sender = Sender(context, least_rate)
    header = await _header(sender, tables)
    opened = await engine.begin_upload(header)
    if isinstance(opened, LoraInfo):
        return pb.UploadLoraResponse(lora=lora_file(opened), existed=True)
    try:
        await _chunks(sender, opened)
        await opened.commit()
    finally:
        opened.abort()
    ref = LoraRef(name=header.name)
    details = await engine.get_lora(ref, engine.models[0].name, include_modules=False)
    return pb.UploadLoraResponse(lora=lora_file(details.info))


async def _header(sender: Sender, tables: Mapping[type[Message], Table]) -> UploadHeader:
    part = await sender.next()
    if part is None or part.WhichOneof("part") != "header":
        raise InvalidRequest([FieldViolation("header", "must be the first message")])
    judge(part.header, tables, below="header")
    name = part.header.name.removesuffix(".safetensors")
    return UploadHeader(name, part.header.sha256.lower(), part.header.size_bytes)


async def _chunks(sender: Sender, upload: Upload) -> None:
    while (part := await sender.next()) is not None:
        if part.WhichOneof("part") != "chunk":
            raise InvalidRequest([FieldViolation("chunk", "must be set in every message after the first")])
        if not part.chunk:
            raise InvalidRequest([FieldViolation("chunk", "is empty; leave it out")])
        await upload.write(part.chunk)
