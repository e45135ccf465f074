"""Replicas killed at every event of a job: `python -m benchmarks.kills`.

A server with two replicas draws the same picture again and again. At each event in turn one replica, then
the other, gets SIGKILL: half of the jobs go on untouched, the other half is run again. What the client hears
is held against an undisturbed run: events, their numbers, the picture's bytes.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from pathlib import Path

import grpc

from sdgrpc.client import Client
from sdgrpc.v1 import diffusion_pb2 as pb
from sdgrpc.v1 import diffusion_pb2_grpc as pb_grpc
from tests.support.server import running_server

READY_SECONDS = 120.0
JOB_SECONDS = 120.0


def request_of(steps: int) -> pb.GenerateRequest:
    """A picture with a LoRA."""
    request = pb.GenerateRequest(prompt="a red circle", width=64, height=64)
    request.sampling.steps, request.sampling.seed = steps, 5
    request.loras.add(name="sepia", strength=0.5)
    return request


def told(events: Sequence[pb.JobEvent]) -> list[tuple[int, str, bytes]]:
    """What a client relies on: the numbers, the kinds, the picture."""
    return [
        (
            event.sequence,
            str(event.WhichOneof("event")),
            event.image.image.data if event.HasField("image") else b"",
        )
        for event in events
    ]


def replicas(client: Client, killed: Set[int]) -> list[int]:
    """The processes of both replicas, the older first, once both take jobs."""
    end = time.monotonic() + READY_SECONDS
    while time.monotonic() < end:
        ready = [one.process_id for one in next(client.watch_status()).replicas if one.state == "ready"]
        if len(ready) == 2 and killed.isdisjoint(ready):  # a death is told a moment later
            return sorted(ready)
        time.sleep(0.05)
    raise RuntimeError("a killed replica did not come back")


def drawn(channel: grpc.Channel, request: pb.GenerateRequest, at: int, victim: int) -> Iterator[pb.JobEvent]:
    """Draw, and kill a process once the event of that number is there; none is killed at -1."""
    for number, event in enumerate(
        pb_grpc.DiffusionServiceStub(channel).Generate(request, timeout=JOB_SECONDS)
    ):
        yield event
        if number == at:
            os.kill(victim, signal.SIGKILL)


def outcome(channel: grpc.Channel, request: pb.GenerateRequest, at: int, victim: int, right: object) -> str:
    """In a word, how a job ended whose replica may have been killed."""
    try:
        events = list(drawn(channel, request, at, victim))
    except grpc.RpcError as error:
        return f"{error.code().name}: {error.details()}"
    return "unseen" if told(events) == right else "other events or bytes"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what the clients saw; the exit status is 1 where one saw a death."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kills", description=__doc__)
    parser.add_argument("--times", type=int, default=100, help="how many replicas are killed")
    parser.add_argument("--steps", type=int, default=6, help="of the picture")
    options = parser.parse_args(arguments)
    request, seen = request_of(options.steps), Counter[str]()
    killed, seconds = set[int](), list[float]()
    flags = ("--cluster", "local", "--replicas", "2", "--no-batching")
    with (
        tempfile.TemporaryDirectory() as folder,
        running_server(Path(folder) / "log", *flags) as server,
        Client(server.target) as client,
        grpc.insecure_channel(server.target) as channel,
    ):
        right = told(list(drawn(channel, request, -1, 0)))
        for turn in range(options.times):
            at, which = turn % len(right), turn // len(right) % 2
            began = time.monotonic()
            victim = replicas(client, killed)[which]
            seen[outcome(channel, request, at, victim, right)] += 1
            killed.add(victim)
            seconds.append(time.monotonic() - began)
    each = statistics.median(seconds)
    print(f"{options.times} kills at {len(right)} events in turn, {each:.2f} s each: {dict(seen)}")
    return 0 if set(seen) == {"unseen"} else 1


if __name__ == "__main__":
    raise SystemExit(main())
