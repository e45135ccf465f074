"""Answers before the body was read.

A connection that is closed with bytes unread is reset, and the answer is lost with it.
"""

from __future__ import annotations

import asyncio

from starlette.types import Message, Receive, Send

LINGER_SECONDS = 5.0
LINGER_BYTES = 256 << 20
"""How much is read and thrown away for the sake of an answer that says no."""


class Lingering:
    """One request's `receive` and `send`: a refusal ends once its caller has stopped sending."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._read = self._refusing = False

    async def receive(self) -> Message:
        """Pass on what comes, and note whether that was all."""
        message = await self._receive()
        self._read = self._read or not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """Pass on an answer; before a refusal's end the rest of the body is read, within bounds."""
        if message["type"] == "http.response.start":
            self._refusing = message["status"] >= 400
        ends = message["type"] == "http.response.body" and not message.get("more_body", False)
        if not (ends and self._refusing) or self._read:
            await self._send(message)
            return
        await self._send({**message, "more_body": True})
        await self._drop_the_rest()
        await self._send({"type": "http.response.body", "body": b""})

    async def _drop_the_rest(self) -> None:
        dropped = 0
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                while not self._read and dropped < LINGER_BYTES:
                    dropped += len((await self.receive()).get("body", b""))
        except TimeoutError:
            return
