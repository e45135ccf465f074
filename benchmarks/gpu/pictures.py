"""Whole pictures over gRPC: one at a time, with previews, a trace with LoRAs; beside diffusers in process."""

from __future__ import annotations

import asyncio
import random
import statistics
import threading
import time
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import torch

from benchmarks.gpu.subject import Subject
from benchmarks.gpu.timing import Clock, timed
from sdgrpc.api.server import Server
from sdgrpc.client import Client
from sdgrpc.engine.local import LocalEngine
from sdgrpc.engine.models.device_options import DeviceOptions
from sdgrpc.engine.options import EngineOptions, LoopOptions
from sdgrpc.lora.store.library import LoraLibrary
from sdgrpc.settings import Settings

PROMPT = "a red cat on a blue chair, oil on canvas"
Record = dict[str, Any]
Mode = Literal["off", "blocks", "graphs"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Drawing:
    """A request of either side."""

    steps: int
    seed: int = 0
    loras: tuple[str, ...] = ()
    preview: str | None = None


@dataclass
class Ours:
    """A server's engine and a client of it; `side` is that of the pictures."""

    engine: LocalEngine
    client: Client
    side: int
    events: int = field(default=0)

    def draw(self, asked: Drawing) -> None:
        """Send a request and read its stream to the end."""
        job = self.client.generate(
            PROMPT,
            negative_prompt="blurred",
            width=self.side,
            height=self.side,
            steps=asked.steps,
            guidance_scale=7.5,
            scheduler="euler",
            seed=asked.seed,
            loras=list(asked.loras),
            preview=asked.preview,
        )
        self.events += sum(1 for _ in job)

    def settle(self, steps: int, most: int) -> None:
        """Have the shapes compiled that up to `most` requests at once lead to."""
        for count in (1, 2, 4, 8, 16):
            if count <= most:
                with ThreadPoolExecutor(count) as clients:
                    list(clients.map(self.draw, [Drawing(steps, seed) for seed in range(count)]))
                self.compiled()

    def compiled(self) -> None:
        """Wait until nothing is being compiled."""
        for served in self.engine._models.pool.resident().values():
            served.evaluator.wait()


@contextmanager
def our_server(subject: Subject, mode: Mode, *, rows: int = 16) -> Iterator[Ours]:
    """Serve the subject from a thread's event loop on a free loopback port."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    options = EngineOptions(
        LoopOptions(max_rows_per_call=rows),
        8 << 30,
        hang_timeout=0,
        device=DeviceOptions(compile=mode, resident_factors="auto"),
    )
    engine = LocalEngine([subject.model], LoraLibrary([subject.folder]), options)

    async def started() -> Server:
        server = Server(Settings(listen="127.0.0.1:0"))
        await server.start()
        await engine.warm_up()
        await server.load(lambda: engine)
        return server

    def wait_for(coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()

    server = wait_for(started())
    try:
        with Client(server.address) as client:
            yield Ours(engine, client, subject.side)
    finally:
        wait_for(server.stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class Diffusers:
    """One request at a time: fuse, draw, unfuse, unload; a set that is fused already stays for the next."""

    def __init__(self, subject: Subject) -> None:
        self._pipe, self._subject = subject.pipeline(own_weights=True), subject
        self._fused: tuple[str, ...] = ()

    @torch.inference_mode()
    def draw(self, asked: Drawing) -> None:
        """Draw one picture with its LoRAs."""
        if asked.loras != self._fused:
            self._change(asked.loras)
        self._pipe(
            PROMPT,
            negative_prompt="blurred",
            width=self._subject.side,
            height=self._subject.side,
            num_inference_steps=asked.steps,
            guidance_scale=7.5,
            generator=torch.Generator().manual_seed(asked.seed),
        )

    def _change(self, loras: tuple[str, ...]) -> None:
        pipe, encoders = self._pipe, list(self._subject.model.text_encoders)
        if self._fused:
            pipe.unfuse_lora(components=["unet", *encoders])
            pipe.unload_lora_weights()
        for name in loras:
            folder = self._subject.folder
            pipe.load_lora_weights(folder, weight_name=f"{name}.safetensors", adapter_name=name)
        if loras:
            pipe.set_adapters(list(loras), [1.0] * len(loras))
            pipe.fuse_lora(components=["unet", *encoders], adapter_names=list(loras))
        self._fused = loras


def single(subject: Subject, mode: Mode, steps: int, rounds: int) -> Record:
    """One picture with and without previews on every step, the first one and later ones; and diffusers'."""
    device = subject.model.device
    rival = Diffusers(subject)
    with our_server(subject, mode) as ours:
        first = timed(lambda: ours.draw(Drawing(steps)), device)
        ours.compiled()
        works = {
            "ours": lambda: ours.draw(Drawing(steps)),
            "ours, with previews": lambda: ours.draw(Drawing(steps, preview="picture")),
            "ours, with decoded previews": lambda: ours.draw(Drawing(steps, preview="decoded")),
            "diffusers": lambda: rival.draw(Drawing(steps)),
        }
        times: dict[str, list[float]] = {name: [] for name in works}
        for number in range(-1, rounds):
            for name, work in works.items():
                spent = timed(work, device)
                if number >= 0:
                    times[name].append(spent)
    middle = {name: statistics.median(values) for name, values in times.items()}
    return {"mode": mode, "steps": steps, "first": first, "seconds": middle, "range": _range(times)}


def _range(times: dict[str, list[float]]) -> dict[str, list[float]]:
    return {name: [min(values), max(values)] for name, values in times.items()}


def trace(
    subject: Subject, modes: Sequence[Mode], steps: int, requests: int, clock: Clock
) -> Iterator[Record]:
    """Requests over the LoRAs, Zipf's popularity, Poisson's arrivals at 80 % of diffusers' capacity.

    Recorded graphs are those of one picture a call; with other modes pictures share calls.
    """
    chance, names = random.Random(0), subject.loras
    popularity = [1 / (rank + 1) for rank in range(len(names))]
    drawings = []
    for seed in range(requests):
        count = chance.choices((0, 1, 2), (1, 5, 2))[0]
        drawings.append(Drawing(steps, seed, tuple(sorted(set(chance.choices(names, popularity, k=count))))))
    rival, device = Diffusers(subject), subject.model.device
    rival.draw(Drawing(1))
    sample = drawings[: max(2, requests // 8)]
    service = timed(lambda: [rival.draw(one) for one in sample], device) / len(sample)
    at, entries = 0.0, []
    for one in drawings:
        entries.append((at, one))
        at += chance.expovariate(0.8 / service)
    record: Record = {"diffusers_service_seconds": service, "requests": requests, "steps": steps}
    record["diffusers"] = _measured(rival.draw, entries, 1)
    yield record
    for mode in modes:
        if clock.left < 1.2 * at:
            yield {f"ours, {mode}": "no time left"}
            continue
        with our_server(subject, mode, rows=2 if mode == "graphs" else 16) as ours:
            ours.settle(1, 1 if mode == "graphs" else 8)
            yield {f"ours, {mode}": _measured(ours.draw, entries, requests)}


def _measured(draw: Any, entries: Sequence[tuple[float, Drawing]], workers: int) -> Record:  # noqa: ANN401
    started = time.perf_counter()

    def one(entry: tuple[float, Drawing]) -> float:
        at, asked = entry
        time.sleep(max(0.0, started + at - time.perf_counter()))
        draw(asked)
        return time.perf_counter() - started - at

    with ThreadPoolExecutor(workers) as clients:
        latencies = sorted(clients.map(one, entries))
    spent = time.perf_counter() - started
    return {
        "mean_latency_seconds": statistics.mean(latencies),
        "p95_latency_seconds": latencies[min(len(latencies) - 1, int(0.95 * len(latencies)))],
        "pictures_per_minute": 60 * len(entries) / spent,
    }
