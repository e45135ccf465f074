"""Clients that draw, cancel, vanish, hurry, linger and send nonsense, and record what they see."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence

import grpc
from grpc import aio

from sdgrpc.v1 import diffusion_pb2 as pb
from sdgrpc.v1 import diffusion_pb2_grpc as pb_grpc
from tests.faults.history import Record
from tests.support.api import details_of

ACTIONS = {"draw": 8, "cancel": 3, "reset": 1, "hurry": 2, "nonsense": 1, "unknown": 1, "linger": 1}


def requests() -> dict[str, pb.GenerateRequest]:
    """Requests that differ in what jobs can share: the size, the LoRA set, guidance, the prompt's length."""
    sepia, night = pb.Lora(name="sepia", strength=0.8), pb.Lora(name="night", strength=0.5)
    made = {}
    for number, (loras, size, scale, prompt) in enumerate(
        [
            ([], 128, 5.0, "a red star"),
            ([], 128, 5.0, "a blue disc on a green background"),
            ([sepia], 128, 5.0, "a red star"),
            ([sepia, night], 128, 1.0, "a yellow square"),
            ([night], 64, 5.0, "a red star, " * 30),
            ([], 64, 1.0, "a green heart"),
        ]
    ):
        made[f"request {number}"] = pb.GenerateRequest(
            prompt=prompt,
            loras=loras,
            width=size,
            height=size,
            sampling=pb.Sampling(steps=6, seed=number, guidance_scale=scale, image_count=1 + number % 2),
        )
    return made


class Traffic:
    """Sends calls to `target` from `width` clients at a time; all chance is `seed`'s."""

    def __init__(self, target: str, seed: int, *, width: int = 12) -> None:
        self._target, self._width = target, width
        self._random = random.Random(seed)  # noqa: S311 - tests need no cryptography
        self.records: list[Record] = []

    async def run(self, calls: int) -> Sequence[Record]:
        """Send that many and return what happened."""
        turns = iter(range(calls))

        async def client() -> None:
            async with aio.insecure_channel(self._target) as channel:
                for _ in turns:
                    await self._call(channel)

        await asyncio.gather(*(client() for _ in range(self._width)))
        return self.records

    async def _call(self, channel: aio.Channel) -> None:
        action = self._random.choices(list(ACTIONS), list(ACTIONS.values()))[0]
        key, asked = self._random.choice(list(requests().items()))
        if action == "nonsense":
            asked.sampling.steps = 100_000
        elif action == "unknown":
            asked.loras.add(name="no such file", strength=0.5)
        record = Record(key, action, asked)
        self.records.append(record)
        if action == "reset":
            await self._reset(record)
            return
        timeout = self._random.uniform(0.01, 1.0) if action == "hurry" else 300
        call = pb_grpc.DiffusionServiceStub(channel).Generate(asked, timeout=timeout)
        await self._read(record, call, self._random.randrange(8))

    async def _reset(self, record: Record) -> None:
        """Let a client vanish with its connection."""
        async with aio.insecure_channel(self._target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            call = pb_grpc.DiffusionServiceStub(channel).Generate(record.request)
            reading = asyncio.ensure_future(self._read(record, call, 1000))
            await asyncio.sleep(self._random.uniform(0, 0.3))
            await channel.close()
            await reading
        record.ends, record.action = ["CANCELLED"], "cancel"  # whatever the client's library called it

    async def _read(self, record: Record, call: aio.UnaryStreamCall, cancel_after: int) -> None:
        try:
            while (event := await call.read()) is not aio.EOF:
                record.events.append((time.monotonic(), event))
                if record.action == "linger":
                    await asyncio.sleep(0.05)
                if record.action == "cancel" and len(record.events) > cancel_after:
                    call.cancel()
            record.ends.append("OK" if not call.cancelled() else "CANCELLED")
        except asyncio.CancelledError:
            record.ends.append("CANCELLED")
        except aio.AioRpcError as error:
            record.ends.append(reason_of(error))
        if record.action == "cancel":  # it may have ended before it was cancelled
            record.ends = ["CANCELLED"] if record.ends == ["OK"] else record.ends


def reason_of(error: aio.AioRpcError) -> str:
    """The reason that the server named, or the status where it named none."""
    trailers = dict(error.trailing_metadata() or ())
    if "grpc-status-details-bin" in trailers:
        return str(details_of(error)["ErrorInfo"].reason)
    return "CANCELLED" if error.code() is grpc.StatusCode.CANCELLED else error.code().name
