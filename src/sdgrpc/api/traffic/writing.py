"""Events out to their reader, who has a bounded time to take each."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from google.protobuf.message import Message
from grpc import aio

from sdgrpc.api.calls.call import current
from sdgrpc.errors import ReaderStalled

LEAVING_SECONDS = 2.0
"""What a write may take from the moment that the server leaves: who reads at all is quicker."""


class Writer:
    """Writes messages of calls; one for all of them. `leaving` is set once the server stops."""

    def __init__(self, seconds: float, leaving: asyncio.Event) -> None:
        self._seconds, self._leaving = seconds, leaving

    async def write(self, context: aio.ServicerContext[Any, Any], message: Message) -> None:
        """Write a message, which waits while the reader's window is full.

        Raises:
            ReaderStalled: the reader took nothing for too long. grpc still holds the message.

        """
        began = time.monotonic()
        writing = asyncio.ensure_future(context.write(message))
        leaving = asyncio.ensure_future(self._leaving.wait())
        try:
            await asyncio.wait([writing, leaving], timeout=self._seconds, return_when=asyncio.FIRST_COMPLETED)
            if not writing.done() and leaving.done():
                await asyncio.wait([writing], timeout=min(LEAVING_SECONDS, self._seconds))
            if not writing.done():
                raise ReaderStalled("the answer was not read for too long; the job is dropped")
            writing.result()
        finally:
            current().sent_seconds += time.monotonic() - began
            for each in (writing, leaving):
                each.cancel()
            await asyncio.gather(writing, leaving, return_exceptions=True)
