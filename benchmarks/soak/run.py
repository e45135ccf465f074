"""The server, its faults, the clients, and what is measured meanwhile."""

from __future__ import annotations

import asyncio
import io
import random
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc
import numpy as np
import psutil
from grpc import aio
from PIL import Image

from benchmarks.soak.calls import Client, Tally
from benchmarks.soak.report import Report, Sample
from sdgrpc.v1 import catalog_pb2, catalog_pb2_grpc
from sdgrpc.v1 import diffusion_pb2 as pb
from sdgrpc.v1 import diffusion_pb2_grpc as pb_grpc

# Small files on a local disk are read and written between two awaits here.
# ruff: noqa: ASYNC230, ASYNC240, ASYNC110
PLACES = ("predict", "prepare", "encode", "decode", "acquire", "write", "preview")
KINDS = ("oom1", "mem", "bug", "slow")
TOLERANCE = 2  # of 255: docs/architecture.md, "What batching changes"
SAMPLES = 20


async def run(*, calls: int, clients: int, seed: int, tiny: bool) -> Report:
    """Send `calls` calls to a server of its own, and say what became of them and of it."""
    with TemporaryDirectory() as name:
        control, log = Path(name, "control"), Path(name, "log")
        command = ["-m", "tests.faults.launcher", str(control), "serve", "--listen", "127.0.0.1:0"]
        command += [
            "--lora-cache-bytes",
            str(4 << 20),
            "--queue-size",
            str(clients),
            "--log-level",
            "warning",
        ]
        with log.open("wb") as sink:
            process = await asyncio.create_subprocess_exec(
                sys.executable, *command, stdout=asyncio.subprocess.PIPE, stderr=sink
            )
            try:
                assert process.stdout is not None  # noqa: S101 - it is a pipe
                target = (await process.stdout.readline()).decode().split()[-1]
                report = await _soak(target, psutil.Process(process.pid), control, calls, clients, seed, tiny)
                process.terminate()
                report.exit_status = await asyncio.wait_for(process.wait(), 60)
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        text = log.read_text("utf-8", "replace")
        report.fatal_lines = text.count("the engine cannot go on") + text.count("ending now")
    return report


async def _soak(
    target: str, server: psutil.Process, control: Path, calls: int, clients: int, seed: int, tiny: bool
) -> Report:
    tally, started, turns = Tally(), time.monotonic(), list(range(calls))
    report = Report(calls, tally.ends)
    working = asyncio.gather(
        *(Client(target, tally, seed * 1000 + number, tiny=tiny).run(turns) for number in range(clients))
    )
    helping = [
        asyncio.ensure_future(_faults(control, random.Random(seed))),
        asyncio.ensure_future(_watch(server, report, turns, calls)),
    ]
    await working
    for each in helping:
        each.cancel()
    control.write_text("")
    report.seconds = time.monotonic() - started
    async with aio.insecure_channel(target) as channel:
        await _settle(channel, report)
        await _compare(channel, tally, report)
        await _settle(channel, report)
    report.samples.append(_sample(server, calls))
    return report


async def _faults(control: Path, chance: random.Random) -> None:
    """Let a place fail every now and then."""
    while True:
        control.write_text(f"{chance.choice(PLACES)} {chance.choice(KINDS)}")
        await asyncio.sleep(chance.uniform(0.05, 0.3))
        control.write_text("")
        await asyncio.sleep(chance.uniform(0.5, 1.5))


async def _watch(server: psutil.Process, report: Report, turns: list[int], calls: int) -> None:
    """Measure the server after every twentieth part of the calls."""
    for part in range(1, SAMPLES):
        while len(turns) > calls - calls * part // SAMPLES:
            await asyncio.sleep(0.05)
        report.samples.append(_sample(server, calls - len(turns)))


def _sample(server: psutil.Process, calls: int) -> Sample:
    with server.oneshot():
        return Sample(calls, server.memory_info().rss / 2**20, server.num_fds(), server.num_threads())


async def _settle(channel: aio.Channel, report: Report) -> None:
    """Wait until nothing runs, and note what is still held then."""
    watch: Any = catalog_pb2_grpc.CatalogServiceStub(channel).WatchStatus(
        catalog_pb2.WatchStatusRequest(), timeout=60
    )
    try:
        while (status := await watch.read()) is not aio.EOF:
            report.left_jobs = status.running + status.queued
            report.left_leases = sum(held.in_use for held in status.lora_sets)
            if not report.left_jobs and not report.left_leases:
                break
    except aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
            raise
    watch.cancel()


async def _compare(channel: aio.Channel, tally: Tally, report: Report) -> None:
    """Draw every request that was drawn once more, alone and without faults, and compare all its pictures."""
    stub = pb_grpc.DiffusionServiceStub(channel)
    for key, drawn in tally.pictures.items():
        request = pb.TransformRequest.FromString(key)
        if request.HasField("image"):
            call: Any = stub.Transform(request)
        else:
            call = stub.Generate(pb.GenerateRequest.FromString(key))
        alone = [event.image.image.data async for event in call if event.HasField("image")]
        for images in drawn:
            for image, expected in zip(images, alone, strict=False):
                report.pictures += 1
                report.wrong_pictures += bool(np.abs(_pixels(image) - _pixels(expected)).max() > TOLERANCE)


def _pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
