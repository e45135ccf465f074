"""What the clients of the soak do, and what may become of it."""

from __future__ import annotations

import asyncio
import io
import random
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc import aio
from PIL import Image

from sdgrpc.v1 import catalog_pb2, catalog_pb2_grpc
from sdgrpc.v1 import diffusion_pb2 as pb
from sdgrpc.v1 import diffusion_pb2_grpc as pb_grpc

# What clients do, and how often out of the sum.
ACTIONS = {
    "draw": 40,
    "cancel": 15,
    "cut": 4,
    "kill": 1,
    "late": 8,
    "nonsense": 8,
    "not an image": 4,
    "unknown": 4,
    "linger": 4,
    "list": 6,
    "fuse": 6,
}
# How calls may end, whatever was done to them: any other end is a fault of the server.
FINE = {
    "OK",
    "CANCELLED",
    "DEADLINE_EXCEEDED",
    "DEADLINE_TOO_SOON",
    "QUEUE_FULL",
    "OUT_OF_MEMORY",
    "INJECTED",
    "INVALID_REQUEST",
    "LORA_NOT_FOUND",
    "TOO_MANY_CALLS",
}
KILLED = """
import sys
import grpc
from sdgrpc.v1 import diffusion_pb2 as pb, diffusion_pb2_grpc as pb_grpc
stub = pb_grpc.DiffusionServiceStub(grpc.insecure_channel(sys.argv[1]))
for event in stub.Generate(pb.GenerateRequest.FromString(sys.stdin.buffer.read())):
    print(event.sequence, flush=True)
"""
LORAS = ("sepia", "night", "outline", "stripes", "postcard", "flower")


@dataclass
class Tally:
    """How calls ended, by what was done; the pictures that came, by what was asked."""

    ends: Counter[tuple[str, str]] = field(default_factory=Counter)
    pictures: dict[bytes, list[list[bytes]]] = field(default_factory=dict)


def asked(chance: random.Random, *, tiny: bool) -> pb.GenerateRequest | pb.TransformRequest:
    """A request out of a few hundred different ones, so that each picture comes again and can be compared."""
    number = chance.randrange(240)
    size = 64 if tiny else (128, 64, 96)[number % 3]
    loras = [pb.Lora(name=LORAS[number % 6], strength=0.7)] if number % 2 else []
    values: dict[str, Any] = {
        "prompt": f"a red star number {number % 5}" + ", shining" * (30 * (number % 7 == 0)),
        "loras": loras,
        "width": size,
        "height": size,
        "sampling": pb.Sampling(
            steps=2 if tiny else 4,
            seed=number,
            scheduler=pb.Scheduler.values()[1 + number % 16],
            guidance_scale=(5.0, 1.0)[number % 4 == 3],
            image_count=1 + (number % 5 == 0),
        ),
        "output": pb.Output(preview=pb.PreviewOptions(kind=pb.PreviewKind.values()[number % 4])),
    }
    if number % 3 == 0:
        return pb.TransformRequest(**values, image=pb.Image(data=_picture(number)), strength=0.5)
    return pb.GenerateRequest(**values)


def _picture(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), (number, 255 - number, 100)).save(file, "PNG")
    return file.getvalue()


class Client:
    """One of the clients: sends a call after the other until `turns` are used up."""

    def __init__(self, target: str, tally: Tally, seed: int, *, tiny: bool) -> None:
        self._target, self._tally, self._tiny = target, tally, tiny
        self._chance = random.Random(seed)

    async def run(self, turns: list[int]) -> None:
        """Send calls."""
        async with aio.insecure_channel(self._target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            while turns:
                turns.pop()
                action = self._chance.choices(list(ACTIONS), list(ACTIONS.values()))[0]
                self._tally.ends[action, await self._end_of(action, channel)] += 1

    async def _end_of(self, action: str, channel: aio.Channel) -> str:
        try:
            await self._act(action, channel)
        except aio.AioRpcError as error:
            return reason_of(error)
        except (asyncio.CancelledError, aio.UsageError):
            return "CANCELLED"
        return "OK"

    async def _act(self, action: str, channel: aio.Channel) -> None:
        catalog = catalog_pb2_grpc.CatalogServiceStub(channel)
        if action == "list":
            await catalog.ListLoras(catalog_pb2.ListLorasRequest())
        elif action == "fuse":
            loras = [pb.Lora(name=self._chance.choice(LORAS), strength=round(self._chance.random(), 1))]
            await catalog.PrepareLoras(catalog_pb2.PrepareLorasRequest(loras=loras))
        elif action == "kill":
            await self._kill()
        elif action == "cut":
            async with aio.insecure_channel(self._target, [("grpc.use_local_subchannel_pool", 1)]) as own:
                call = self._call(own, asked(self._chance, tiny=self._tiny))
                for _ in range(self._chance.randrange(4)):
                    await call.read()
        else:
            await self._draw(action, channel)

    async def _draw(self, action: str, channel: aio.Channel) -> None:
        request = asked(self._chance, tiny=self._tiny)
        if action == "nonsense":
            request.sampling.steps = 10**6
        elif action == "unknown":
            request.loras.add(name="no such file", strength=0.5)
        elif action == "not an image":
            request = pb.TransformRequest(prompt="x", image=pb.Image(data=self._chance.randbytes(2000)))
        timeout = self._chance.uniform(0.01, 0.5) if action == "late" else 600
        call, images = self._call(channel, request, timeout), []
        leave_after = self._chance.randrange(6) if action == "cancel" else 10**6
        while (event := await call.read()) is not aio.EOF:
            if event.HasField("image"):
                images.append(event.image.image.data)
            if event.sequence >= leave_after:
                call.cancel()
            if action == "linger":
                await asyncio.sleep(0.2)
        if images:
            self._tally.pictures.setdefault(request.SerializeToString(deterministic=True), []).append(images)

    def _call(
        self, channel: aio.Channel, request: pb.GenerateRequest | pb.TransformRequest, timeout: float = 600
    ) -> Any:  # noqa: ANN401 - grpc's calls have no public type
        stub = pb_grpc.DiffusionServiceStub(channel)
        if isinstance(request, pb.TransformRequest):
            return stub.Transform(request, timeout=timeout)
        return stub.Generate(request, timeout=timeout)

    async def _kill(self) -> None:
        """Let a client's process end in the middle of a job."""
        request = pb.GenerateRequest(prompt="killed", sampling=pb.Sampling(steps=50))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", KILLED, self._target, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdin is not None  # noqa: S101 - both are pipes
        assert process.stdout is not None  # noqa: S101
        process.stdin.write(request.SerializeToString())
        process.stdin.close()
        await process.stdout.readline()
        process.kill()
        await process.wait()


def reason_of(error: aio.AioRpcError) -> str:
    """The reason that the server named, or the status where it named none."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status = status_pb2.Status.FromString(value)
            info = error_details_pb2.ErrorInfo()
            if any(detail.Unpack(info) for detail in status.details):
                return "INJECTED" if info.reason == "INTERNAL" else info.reason
    return "CANCELLED" if error.code() is grpc.StatusCode.CANCELLED else error.code().name
