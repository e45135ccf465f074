"""UploadLora: a header, then chunks, into an upload of the engine's."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from google.protobuf.message import Message
from grpc import aio

from sdgrpc.api.catalog_codec import lora_file
from sdgrpc.api.catalog_tables import judge
from sdgrpc.api.tables import Table
from sdgrpc.domain import LoraInfo, LoraRef, UploadHeader
from sdgrpc.engine.base import Engine, Upload
from sdgrpc.errors import FieldViolation, InvalidRequest, UploadInterrupted
from sdgrpc.v1 import catalog_pb2 as pb

PATIENCE_SECONDS = 60.0

Context = aio.ServicerContext[Any, Any]


async def receive(
    context: Context, engine: Engine, tables: Mapping[type[Message], Table]
) -> pb.UploadLoraResponse:
    """Take a file, or say at once that it is there. However the call ends otherwise, nothing of it stays."""
    header = await _header(context, tables)
    opened = await engine.begin_upload(header)
    if isinstance(opened, LoraInfo):
        return pb.UploadLoraResponse(lora=lora_file(opened), existed=True)
    try:
        await _chunks(context, opened)
        await opened.commit()
    finally:
        opened.abort()
    ref = LoraRef(1.0, 1.0, name=header.name)
    details = await engine.get_lora(ref, engine.models[0].name, include_modules=False)
    return pb.UploadLoraResponse(lora=lora_file(details.info))


async def _header(context: Context, tables: Mapping[type[Message], Table]) -> UploadHeader:
    part = await _next(context)
    if part is None or part.WhichOneof("part") != "header":
        raise InvalidRequest([FieldViolation("header", "must be the first message")])
    judge(part.header, tables, below="header")
    name = part.header.name.removesuffix(".safetensors")
    return UploadHeader(name, part.header.sha256.lower(), part.header.size_bytes)


async def _chunks(context: Context, upload: Upload) -> None:
    while (part := await _next(context)) is not None:
        if part.WhichOneof("part") != "chunk":
            raise InvalidRequest([FieldViolation("chunk", "must be set in every message after the first")])
        await upload.write(part.chunk)


async def _next(context: Context) -> pb.UploadLoraRequest | None:
    """The next message; None at the end of what the client sends."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            part: pb.UploadLoraRequest | object = await context.read()
    except TimeoutError:
        raise UploadInterrupted(
            f"nothing came for {PATIENCE_SECONDS:.0f} s; nothing of the upload was kept"
        ) from None
    return part if isinstance(part, pb.UploadLoraRequest) else None
