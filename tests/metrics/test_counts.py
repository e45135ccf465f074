"""The numbers are true: those of the client, and those of WatchStatus."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import grpc
import pytest
from grpc import aio

from sdgrpc.v1 import diffusion_pb2 as pb
from sdgrpc.v1 import diffusion_pb2_grpc as pb_grpc
from tests.metrics.conftest import Watched
from tests.support.api import details_of, events_of, generate, inpaint, png, transform, until_running
from tests.support.assets import lora_names

QUICK = pb.Sampling(steps=2, guidance_scale=1)
LONG = pb.Sampling(steps=150, guidance_scale=1)
SERVICE = "sdgrpc.v1.DiffusionService"


@dataclass
class Client:
    """What a client has seen: how its calls ended, and what was drawn for it."""

    outcomes: Counter = field(default_factory=Counter)
    steps: int = 0
    images: int = 0
    pixels: int = 0

    async def ask(self, served: Watched, request) -> None:
        method = type(request).__name__.removesuffix("Request")
        try:
            for event in await events_of(getattr(served.stub, method)(request)):
                self.steps += event.HasField("progress")
                self.images += event.HasField("image")
                self.pixels += event.image.image.width * event.image.image.height
            self.outcomes[method, "OK", ""] += 1
        except aio.AioRpcError as error:
            reason = details_of(error)["ErrorInfo"].reason
            self.outcomes[method, error.code().name, reason] += 1

    async def leave(self, served: Watched, request) -> None:
        """Ask, and cancel once the job runs; the gate is down."""
        call = served.stub.Generate(request)
        await until_running(call)
        call.cancel()
        self.outcomes["Generate", "CANCELLED", ""] += 1


def requests() -> list:
    """Ninety of every kind, some of which are wrong."""
    small = pb.Image(data=png(64, 64))
    names = lora_names()
    made: list = [generate(sampling=QUICK) for _ in range(30)]
    made += [
        generate(sampling=QUICK, loras=[pb.Lora(name=names[n % len(names)], strength=0.5)]) for n in range(20)
    ]
    made += [generate(sampling=pb.Sampling(steps=3, image_count=2), width=64, height=64) for _ in range(5)]
    made += [transform(image=small, sampling=QUICK) for _ in range(10)]
    made += [inpaint(sampling=QUICK) for _ in range(5)]
    made += [generate(width=-1) for _ in range(10)]
    made += [generate(loras=[pb.Lora(name="nowhere")]) for _ in range(5)]
    made += [transform(image=pb.Image(data=b"no picture")) for _ in range(5)]
    return made


async def test_a_hundred_mixed_jobs_are_counted_as_the_client_counts_them(open_watched) -> None:
    """Every call by its end, every step, image and pixel; the sets' uses add up."""
    async with open_watched(queue_size=200) as served:
        client = Client()
        await asyncio.gather(*(client.ask(served, each) for each in requests()))
        before = await served.scrape()
        assert (before.total("steps_total"), before.total("images_total")) == (client.steps, client.images)
        assert before.total("image_pixels_total") == client.pixels > 0
        served.gate.clear()
        await asyncio.gather(*(client.leave(served, generate(sampling=LONG)) for _ in range(10)))
        served.gate.set()
        await served.until(lambda: served.engine.status().running == 0)
        assert client.outcomes.total() == 100
        after = await served.scrape()
        counted = {
            (labels["method"].removeprefix(f"{SERVICE}/"), labels["code"], labels["reason"]): count
            for labels in after.labels("requests_total")
            if labels["method"].startswith(SERVICE) and (count := after.value("requests_total", **labels))
        }
        assert counted == client.outcomes
        assert after.total("request_seconds_count") == 100
        uses = after.value("lora_sets_hits_total") + after.value("lora_sets_misses_total")
        assert uses == sum(after.value("lora_jobs_total", lora=name) for name in lora_names()) == 20


async def test_stages_are_measured_for_every_job(open_watched) -> None:
    """A job with a LoRA goes through all of them; what they took is not more than the call."""
    async with open_watched() as served:
        lora = pb.Lora(name=lora_names()[0], strength=0.5)
        await events_of(served.stub.Generate(generate(sampling=QUICK, loras=[lora])))
        seen = await served.scrape()
        stages = ("queued", "read", "fused", "encoded", "denoised", "decoded", "sent")
        assert [seen.value("stage_seconds_count", stage=stage) for stage in stages] == [1] * 7
        assert 0 < seen.total("stage_seconds_sum") <= seen.total("request_seconds_sum") + 0.5
        assert seen.value("step_seconds_count", model="embedded") == 2
        assert seen.value("rows_per_call_sum", model="embedded") == 2


async def test_gauges_equal_watch_status(open_watched) -> None:
    """While jobs run and wait, and when all is done."""
    async with open_watched(max_running_jobs=2) as served:
        served.gate.clear()
        lora = pb.Lora(name=lora_names()[0], strength=0.5)
        calls = [served.stub.Generate(generate(sampling=LONG, loras=[lora])) for _ in range(5)]
        await served.until(
            lambda: (now := served.engine.status()).queued == 3 and len(now.resident_sets) == 1
        )
        for running, waiting in ((2, 3), (0, 0)):
            told, seen = await served.status(), await served.scrape()
            assert (told.running, told.queued) == (running, waiting)
            assert seen.value("jobs_running") == told.running
            assert seen.value("jobs_waiting") == told.queued
            assert seen.value("lora_sets_resident") == len(told.lora_sets) == 1
            assert seen.value("lora_sets_bytes") == sum(one.size_bytes for one in told.lora_sets) > 0
            assert seen.value("jobs_finished_total") == told.jobs_finished == 0
            assert seen.value("queue_size") == told.queue_size
            assert seen.value("ready") == told.ready == 1
            for call in calls:
                call.cancel()
            served.gate.set()
            await served.until(lambda: served.engine.status().running == 0)


async def test_gauges_equal_watch_status_of_a_hundred_mixed_jobs(open_watched) -> None:
    """All at once, of every kind, with two sets and without: two run and the others wait."""
    small = pb.Image(data=png(64, 64))
    loras = [[], [pb.Lora(name=lora_names()[0], strength=0.5)], [pb.Lora(name=lora_names()[1], strength=0.7)]]
    async with open_watched(max_running_jobs=2, queue_size=200) as served, AsyncExitStack() as held:
        served.gate.clear()
        calls = []
        for one in range(2):  # a connection bears fewer streams than that
            options = (("grpc.use_local_subchannel_pool", 1), ("sdgrpc.test", one))
            channel = await held.enter_async_context(aio.insecure_channel(served.target, options))
            stub = pb_grpc.DiffusionServiceStub(channel)
            for index in range(25):
                mixed = {"sampling": LONG, "loras": loras[index % 3], "request_id": f"{one}-{index}"}
                calls.append(stub.Generate(generate(**mixed)))
                calls.append(
                    stub.Transform(transform(image=small, **{**mixed, "request_id": f"{one}+{index}"}))
                )
        await served.until(lambda: served.engine.status().queued == 98)
        told, seen = await served.status(), await served.scrape()
        assert (
            (seen.value("jobs_running"), seen.value("jobs_waiting")) == (told.running, told.queued) == (2, 98)
        )
        assert seen.value("lora_sets_resident") == len(told.lora_sets)
        assert seen.value("lora_sets_bytes") == sum(one.size_bytes for one in told.lora_sets)
        for call in calls:
            call.cancel()
        served.gate.set()
        await served.until(lambda: served.engine.status().running == 0)
        told, seen = await served.status(), await served.scrape()
        assert (
            (seen.value("jobs_running"), seen.value("jobs_waiting")) == (told.running, told.queued) == (0, 0)
        )


async def test_one_series_tells_gateways_which_sets_are_where(open_watched) -> None:
    """The set in memory, the one that a job waits for, how many there is room for; its value is the time."""
    async with open_watched(max_running_jobs=1) as served:
        first, second = lora_names()[:2]
        nothing = await served.scrape()
        (labels,) = nothing.labels("lora_requests_info")
        assert labels == {"max_lora": "1", "running_lora_adapters": "", "waiting_lora_adapters": ""}
        served.gate.clear()
        running = served.stub.Generate(generate(sampling=LONG, loras=[pb.Lora(name=first, strength=1)]))
        await until_running(running)
        waiting = served.stub.Generate(generate(sampling=LONG, loras=[pb.Lora(name=second, strength=1)]))
        await served.until(lambda: served.engine.status().queued == 1)
        seen, (held,) = await served.scrape(), (await served.status()).lora_sets
        (labels,) = seen.labels("lora_requests_info")
        assert labels["running_lora_adapters"] == held.lora_set_id
        assert len(labels["waiting_lora_adapters"]) == 64 != held.lora_set_id
        assert int(labels["max_lora"]) == (64 << 20) // held.size_bytes
        assert abs(seen.value("lora_requests_info", **labels) - time.time()) < 60
        running.cancel()
        served.gate.set()
        await until_running(waiting)
        (after,) = (await served.scrape()).labels("lora_requests_info")
        assert after["waiting_lora_adapters"] == ""
        assert after["running_lora_adapters"] == f"{held.lora_set_id},{labels['waiting_lora_adapters']}"
        waiting.cancel()


async def test_evicted_sets_and_a_short_memory_are_counted(open_watched, model) -> None:
    """Two sets without room for both; a UNet call that runs out of memory once."""
    async with open_watched(lora_cache_bytes=1) as served:
        for name in (*lora_names()[:2], lora_names()[0]):
            lora = pb.Lora(name=name, strength=0.5)
            await events_of(served.stub.Generate(generate(sampling=QUICK, loras=[lora])))
        seen = await served.scrape()
        assert (seen.value("lora_sets_misses_total"), seen.value("lora_sets_hits_total")) == (3, 0)
        assert seen.value("lora_sets_evictions_total") == 3

        def fail(*_: object) -> None:
            hook.remove()
            raise MemoryError

        hook = model.unet.register_forward_pre_hook(fail)
        await events_of(served.stub.Generate(generate(sampling=pb.Sampling(steps=2, guidance_scale=5))))
        assert (await served.scrape()).value("out_of_memory_total", model="embedded") == 1


async def test_unknown_methods_are_one_label(open_watched) -> None:
    """However many there are."""
    async with open_watched() as served:
        for name in ("A/B", "C/D"):
            with pytest.raises(aio.AioRpcError) as caught:
                await served.channel.unary_unary(f"/{name}")(b"")
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        seen = await served.scrape()
        assert seen.value("requests_total", method="unknown", code="UNIMPLEMENTED", reason="") == 2
