"""How long a client that uploads is waited for."""

from __future__ import annotations

import asyncio

import pytest

from sdgrpc.api import uploading
from sdgrpc.api.uploading import Sender
from sdgrpc.errors import UploadInterrupted
from sdgrpc.v1 import catalog_pb2 as pb


class Dribbling:
    """A context whose client sends a byte at a time, each after `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.reads = 0

    async def read(self) -> pb.UploadLoraRequest:
        self.reads += 1
        await asyncio.sleep(self.seconds)
        return pb.UploadLoraRequest(chunk=b"x")


async def all_of(sender: Sender, count: int) -> None:
    for _ in range(count):
        await sender.next()


async def test_silence_ends_an_upload(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it always did."""
    monkeypatch.setattr(uploading, "PATIENCE_SECONDS", 0.05)
    with pytest.raises(UploadInterrupted, match="nothing came for 0 s"):
        await Sender(Dribbling(60), 0).next()


async def test_dribbling_ends_an_upload(monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then is not enough to stay: over all, the least rate counts."""
    monkeypatch.setattr(uploading, "PATIENCE_SECONDS", 1.0)
    context = Dribbling(0.3)
    with pytest.raises(UploadInterrupted, match="slower than 1,000 bytes a second"):
        await all_of(Sender(context, 1000), 100)
    assert context.reads <= 4


async def test_whoever_keeps_the_rate_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it takes; and without a least rate, whoever sends at all."""
    monkeypatch.setattr(uploading, "PATIENCE_SECONDS", 2.0)
    for rate in (0, 1):  # a byte at least every tenth of a second is ten times that
        context = Dribbling(0.1)
        await all_of(Sender(context, rate), 25)
        assert context.reads == 25
