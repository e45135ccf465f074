"""The two sides: our server on a real port with its client, and diffusers' pipeline called in process."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

from benchmarks.serving.subject import PROMPT, Subject
from sdgrpc.api.server import Server
from sdgrpc.client import Client
from sdgrpc.engine.local import LocalEngine
from sdgrpc.engine.options import EngineOptions, LoopOptions
from sdgrpc.lora.store.library import LoraLibrary
from sdgrpc.settings import Settings

T = TypeVar("T")


@dataclass(frozen=True)
class Drawing:
    """One request of either side."""

    steps: int
    side: int
    seed: int = 0
    loras: tuple[str, ...] = ()
    preview: str | None = "picture"
    timeout: float | None = None


@dataclass
class Ours:
    """Our server's engine and a client of it; `events` counts what the client was sent."""

    engine: LocalEngine
    client: Client
    events: int = field(default=0)

    def draw(self, asked: Drawing) -> None:
        """Send a request and read its stream to the end."""
        job = self.client.generate(
            PROMPT,
            negative_prompt="blurred",
            width=asked.side,
            height=asked.side,
            steps=asked.steps,
            guidance_scale=7.5,
            scheduler="euler",
            seed=asked.seed,
            loras=list(asked.loras),
            preview=asked.preview,
            timeout=asked.timeout,
        )
        self.events += sum(1 for _ in job)

    def together(self, asked: Sequence[Drawing]) -> None:
        """Send requests at once, each from a thread of its own."""
        with ThreadPoolExecutor(len(asked)) as clients:
            list(clients.map(self.draw, asked))


@contextmanager
def our_server(subject: Subject, **options: Any) -> Iterator[Ours]:  # noqa: ANN401 - LoopOptions' fields
    """Serve the subject from a thread's event loop on a free loopback port."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    loop_options = LoopOptions(max_rows_per_call=16, **options)
    engine = LocalEngine(
        [subject.model], LoraLibrary([subject.lora_dir]), EngineOptions(loop_options, 12 << 30)
    )

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
            yield Ours(engine, client)
    finally:
        wait_for(server.stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@torch.inference_mode()
def diffusers_draws(pipe: Any, asked: Drawing) -> None:  # noqa: ANN401
    """Draw one picture with diffusers' pipeline."""
    pipe(
        PROMPT,
        negative_prompt="blurred",
        width=asked.side,
        height=asked.side,
        num_inference_steps=asked.steps,
        guidance_scale=7.5,
        generator=torch.Generator().manual_seed(asked.seed),
    )


class DiffusersService:
    """One request at a time, as a careful user of diffusers writes it: fuse, draw, unfuse, unload.

    A request with the same set as the one before keeps it fused.
    """

    def __init__(self, subject: Subject) -> None:
        self._pipe = subject.pipeline(own_weights=True)
        self._folder = subject.lora_dir
        self._fused: tuple[str, ...] = ()

    def draw(self, asked: Drawing) -> None:
        """Draw one picture with its LoRAs."""
        if asked.loras != self._fused:
            self._unload()
            for name in asked.loras:
                self._pipe.load_lora_weights(
                    self._folder, weight_name=f"{name}.safetensors", adapter_name=name
                )
            if asked.loras:
                self._pipe.set_adapters(list(asked.loras), [1.0] * len(asked.loras))
                self._pipe.fuse_lora(components=["unet", "text_encoder"], adapter_names=list(asked.loras))
            self._fused = asked.loras
        diffusers_draws(self._pipe, asked)

    def _unload(self) -> None:
        if self._fused:
            self._pipe.unfuse_lora(components=["unet", "text_encoder"])
            self._pipe.unload_lora_weights()
            self._fused = ()


def replay(draw: Any, trace: Sequence[tuple[float, Drawing]], workers: int) -> tuple[list[float], float]:  # noqa: ANN401
    """Send each request at its time in seconds; (latency of each from that time on, seconds in all)."""
    started = time.perf_counter()

    def one(entry: tuple[float, Drawing]) -> float:
        at, asked = entry
        time.sleep(max(0.0, started + at - time.perf_counter()))
        draw(asked)
        return time.perf_counter() - started - at

    with ThreadPoolExecutor(workers) as clients:
        latencies = list(clients.map(one, trace))
    return latencies, time.perf_counter() - started
