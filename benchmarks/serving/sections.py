"""The measurements, each a function from a Bench to a record of numbers."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.serving import loads
from benchmarks.serving.as_it_comes import diffusers_in_float32
from benchmarks.serving.sides import DiffusersService, Drawing, Ours, diffusers_draws, our_server, replay
from benchmarks.serving.subject import Subject
from benchmarks.tables import alternate, medians, seconds
from sdgrpc.diffusion.pictures.previews import preview_pictures
from sdgrpc.diffusion.prompts.conditioning import encode
from sdgrpc.diffusion.sampling.denoise import ModelInput
from sdgrpc.diffusion.sampling.predict import predict
from sdgrpc.images import encode as encode_image

Record = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """What to measure with; `side` is the picture's in pixels, `clients` send at once."""

    subject: Subject
    rounds: int
    steps: int
    sides: tuple[int, ...]
    clients: int
    requests: int
    trace_requests: int = 200

    @property
    def side(self) -> int:
        """The size that most sections draw in."""
        return self.sides[0]

    @property
    def growing_sides(self) -> tuple[int, ...]:
        """Up to four times that size: 256 to 1024 pixels."""
        return tuple(times * self.side for times in (1, 2, 3, 4))


def single(bench: Bench) -> Record:
    """One request over gRPC with previews against diffusers: in process on the same weights, as it comes."""
    pipe = bench.subject.pipeline()
    record: Record = {}
    with our_server(bench.subject) as ours, diffusers_in_float32(tiny=bench.subject.tiny) as as_it_comes:
        for side in bench.sides:
            asked = Drawing(bench.steps, side)
            works = {
                "ours": partial(ours.draw, asked),
                "diffusers": partial(diffusers_draws, pipe, asked),
                "diffusers_float32": partial(as_it_comes, asked),
            }
            record[f"{side}x{side}"] = compared(alternate(works, bench.rounds))
    return record


def compared(times: Mapping[str, list[float]]) -> Record:
    """Medians, ours over the others', and the spread of what was measured."""
    found = medians(times)
    spread = {f"{name}_range": [min(values), max(values)] for name, values in times.items()}
    ratios = {f"ours_over_{name}": found["ours"] / value for name, value in found.items() if name != "ours"}
    return {f"{name}_seconds": value for name, value in found.items()} | spread | ratios


def preview(bench: Bench) -> Record:
    """What a preview and the streaming cost, as a share of a step."""
    model = bench.subject.model
    latents = torch.randn(1, 4, bench.side // 8, bench.side // 8)

    def render() -> None:
        for picture in preview_pictures(model, latents, 0):
            encode_image(picture, "image/png")

    render()
    rendering = statistics.median(seconds(render) for _ in range(50))
    asked = Drawing(1, bench.side)
    step = statistics.median(seconds(lambda: one_step(bench, 1)) for _ in range(bench.rounds))
    with our_server(bench.subject) as ours:
        ours.draw(asked)
        before = ours.events
        nothing = Drawing(bench.steps, bench.side, preview=None)
        overhead = statistics.median(transport(ours, nothing) for _ in range(bench.rounds))
        events = (ours.events - before) / bench.rounds
    return {
        "step_seconds": step,
        "preview_seconds": rendering,
        "preview_share_of_step": rendering / step,
        "stream_seconds_per_job": overhead,
        "stream_events": events,
        "stream_share_of_job": overhead / (step * bench.steps),
    }


def transport(ours: Ours, asked: Drawing) -> float:
    """Seconds of a request that its own report of where the time went does not contain."""
    reported: list[float] = []

    def draw() -> None:
        job = ours.client.generate(
            "a cat", width=asked.side, height=asked.side, steps=asked.steps, scheduler="euler", seed=1
        )
        for event in job:
            ours.events += 1
            if hasattr(event, "decoded_seconds"):
                parts = ("queued", "prepared", "denoised", "decoded")
                reported.append(sum(getattr(event, f"{part}_seconds") for part in parts))

    return seconds(draw) - sum(reported)


def batch(bench: Bench) -> Record:
    """Clients at once, on one LoRA set and on a set each, against diffusers one after the other."""
    rival = DiffusersService(bench.subject)
    names = bench.subject.loras
    record: Record = {}
    with our_server(bench.subject) as ours:
        for label, own in (("one set", False), ("a set each", True)):
            asked = [
                Drawing(bench.steps, bench.side, seed, (names[seed % len(names) if own else 0],))
                for seed in range(bench.clients)
            ]
            together = seconds(partial(ours.together, asked))
            in_a_row = sum(seconds(partial(rival.draw, one)) for one in asked)
            record[label] = {
                "ours_seconds": together,
                "diffusers_seconds": in_a_row,
                "ours_pictures_per_minute": 60 * len(asked) / together,
                "diffusers_pictures_per_minute": 60 * len(asked) / in_a_row,
                "ratio": together / in_a_row,
            }
    return record


def trace(bench: Bench) -> Record:
    """Requests over 12 LoRAs, Zipf's popularity, Poisson's arrivals at 80 % of diffusers' capacity."""
    chance = random.Random(0)
    rival = DiffusersService(bench.subject)
    names = bench.subject.loras
    popularity = [1 / (rank + 1) for rank in range(len(names))]
    drawings = []
    for seed in range(bench.requests):
        count = chance.choices((0, 1, 2), (1, 5, 2))[0]
        chosen = tuple(sorted(set(chance.choices(names, popularity, k=count))))
        drawings.append(Drawing(bench.steps, bench.side, seed, chosen))
    sample = drawings[: max(2, bench.requests // 8)]
    service = seconds(lambda: [rival.draw(one) for one in sample]) / len(sample)  # type: ignore[func-returns-value]
    at, entries = 0.0, []
    for one in drawings:
        entries.append((at, one))
        at += chance.expovariate(0.8 / service)
    with our_server(bench.subject) as ours:
        results = {
            "ours": replay(ours.draw, entries, len(entries)),
            "diffusers": replay(rival.draw, entries, 1),
        }
    record: Record = {"diffusers_service_seconds": service, "requests": len(entries)}
    for name, (latencies, spent) in results.items():
        ordered = sorted(latencies)
        record[name] = {
            "mean_latency_seconds": statistics.mean(latencies),
            "p95_latency_seconds": ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))],
            "pictures_per_minute": 60 * len(entries) / spent,
        }
    return record


def growth(bench: Bench) -> Record:
    """How the cost of a step grows with clients and pixels, and that of a first picture with LoRAs."""
    counts = [count for count in (1, 2, 4, 8, 16) if count <= 2 * bench.clients]
    record: Record = {"seconds_per_step_by_jobs": {count: one_step_timed(bench, count) for count in counts}}
    sizes = {side: seconds(lambda side=side: one_step(bench, 1, side)) for side in bench.growing_sides}  # type: ignore[misc]
    record["seconds_per_step_by_side"] = sizes
    with our_server(bench.subject) as ours:
        numbers = [count for count in (1, 2, 4, 12) if count <= len(bench.subject.loras)]
        record["first_picture_of_one_step_by_loras"] = {
            count: seconds(
                lambda count=count: ours.draw(Drawing(1, bench.side, 0, bench.subject.loras[:count]))  # type: ignore[misc]
            )
            for count in numbers
        }
    return record


def one_step_timed(bench: Bench, jobs: int) -> float:
    """The median time of one shared step."""
    return statistics.median(seconds(lambda: one_step(bench, jobs)) for _ in range(bench.rounds))


def one_step(bench: Bench, jobs: int, side: int | None = None) -> None:
    """One guided UNet call for that many jobs."""
    model, latent = bench.subject.model, (side or bench.side) // 8
    conditioning = encode(model, "a cat", "blurred")
    wishes = [
        ModelInput(torch.randn(1, 4, latent, latent), torch.tensor(100.0 + job), conditioning, 7.5)
        for job in range(jobs)
    ]
    predict(model, wishes, 2 * jobs)


def profiled(bench: Bench) -> Record:
    """Where the time of a guided step goes: the operators with the largest share of their own."""
    one_step(bench, 1)
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        one_step(bench, 1)
    events = sorted(recorded.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    return {event.key: event.self_cpu_time_total / total for event in events[:10]}


def dtypes(_: Bench) -> Record:
    """What a convolution and a product of SD1.5's cost in each dtype on this machine, relative to float32."""
    record: Record = {}
    for dtype in (torch.float32, torch.bfloat16):
        convolution = torch.nn.Conv2d(320, 320, 3, padding=1).to(dtype)
        linear = torch.nn.Linear(640, 640).to(dtype)
        image, rows = torch.randn(2, 320, 8, 8).to(dtype), torch.randn(2, 64, 640).to(dtype)
        with torch.inference_mode():
            times = alternate({"conv3x3": partial(convolution, image), "linear": partial(linear, rows)}, 3)
        record[str(dtype).removeprefix("torch.")] = medians(times)
    return record


SECTIONS: Mapping[str, Callable[[Bench], Record]] = {
    "dtypes": dtypes,
    "single": single,
    "preview": preview,
    "batch": batch,
    "trace": trace,
    "loads": lambda bench: loads.loads(
        bench.subject, requests=bench.trace_requests, side=bench.side, steps=bench.steps
    ),
    "growth": growth,
    "profile": profiled,
}
