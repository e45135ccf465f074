"""HTTP/2 by hand, for what no gRPC client would do."""

from __future__ import annotations

import asyncio
import struct
from contextlib import suppress

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS, SETTINGS, PING, GOAWAY = 1, 4, 6, 7
END_STREAM, END_HEADERS = 1, 4


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    """One frame."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def header(name: str, value: str) -> bytes:
    """A header field without Huffman coding and outside the table, its texts up to 16 KiB."""
    return b"\x00" + _text(name) + _text(value)


def _text(text: str) -> bytes:
    size = len(text)
    if size < 127:
        return bytes([size]) + text.encode()
    left, digits = size - 127, b""
    while left >= 128:
        left, digits = left >> 7, digits + bytes([left & 127 | 128])
    return b"\x7f" + digits + bytes([left]) + text.encode()


class Wire:
    """A plain connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, address: str, greeting: bytes = b"") -> Wire:
        host, _, port = address.rpartition(":")
        wire = cls(*await asyncio.open_connection(host, int(port)))
        wire.writer.write(greeting)
        return wire

    async def send(self, data: bytes) -> None:
        with suppress(ConnectionError):  # the peer may have closed, which is for `until_closed` to tell
            self.writer.write(data)
            await self.writer.drain()

    async def read(self, kind: int, seconds: float = 20.0) -> bytes:
        """Skip to the next frame of a kind and return its payload."""
        async with asyncio.timeout(seconds):
            while True:
                head = await self.reader.readexactly(9)
                payload = await self.reader.readexactly(int.from_bytes(head[:3]))
                if head[3] == kind:
                    return payload

    async def until_closed(self, seconds: float = 20.0) -> bytes:
        """All that comes until the peer closes; TimeoutError if it does not."""
        data = b""
        async with asyncio.timeout(seconds):
            with suppress(ConnectionError):
                while part := await self.reader.read(1 << 16):
                    data += part
        self.close()
        return data

    def close(self) -> None:
        self.writer.close()
