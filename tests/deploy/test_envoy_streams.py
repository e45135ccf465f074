"""Calls through Envoy are as they are without it."""

from __future__ import annotations

import threading
import time

import grpc
import pytest

from sdgrpc.client import Client, DeadlineExceededError, InvalidRequestError, Progress, UnavailableError
from sdgrpc.testing import draw_script, hang_script, invalid_script
from sdgrpc.v1 import diffusion_pb2 as pb
from tests.deploy.conftest import Fronted


def test_events_arrive_one_by_one(fronted: Fronted) -> None:
    """The server sends none before the one that came before was read."""
    read = threading.Semaphore(1)

    def waiting(request, context):
        for event in draw_script(4)(request, context):
            assert read.acquire(timeout=30)
            yield event

    front = fronted(waiting)
    count = 0
    for _ in front.client.generate("a", preview="picture"):
        count += 1
        read.release()
    assert count == 8


def test_a_reader_that_takes_nothing_is_felt(fronted: Fronted) -> None:
    """What the server has sent and the client has not read is a few buffers, whatever there is to send."""
    made = 0

    def flood(_request, _context):
        nonlocal made
        for made in range(1, 65):
            preview = pb.Preview(picture=pb.Image(data=bytes(1 << 20)))
            yield pb.JobEvent(progress=pb.Progress(step=made, step_count=64, previews=[preview]))

    front = fronted(flood)
    few = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1 << 16)]  # the client's own buffers
    with Client(front.envoy.target, options=few) as client:
        call = iter(client.generate("a"))
        assert next(call).step == 1
        before = 0
        while made > before:  # until it has stopped, with all that lies between
            before = made
            time.sleep(0.5)
        assert made <= 8
        assert [event.step for event in call] == list(range(2, 65))


def test_details_of_errors_pass(fronted: Fronted) -> None:
    """Each field that is wrong, with what is wrong with it."""
    front = fronted(invalid_script())
    with pytest.raises(InvalidRequestError) as caught:
        front.client.generate("a").images()
    assert [each.field for each in caught.value.violations] == ["sampling.steps", "loras[1].strength"]
    assert all(each.description for each in caught.value.violations)


def test_a_cancel_reaches_the_server(fronted: Fronted) -> None:
    """At once."""
    started = threading.Event()
    front = fronted(hang_script(started))
    job = front.client.generate("a")
    assert started.wait(30)
    job.cancel()
    assert front.servers[0].cancelled.wait(30)


def test_a_deadline_is_the_servers_too(fronted: Fronted) -> None:
    """It is told, and the call ends at it on both sides."""
    told: list[float] = []

    def hang(request, context):
        told.append(context.time_remaining())
        yield from hang_script(threading.Event())(request, context)

    front = fronted(hang)
    with pytest.raises(DeadlineExceededError):
        front.client.generate("a", timeout=0.5).images()
    assert 0 < told[0] < 0.6
    assert front.servers[0].cancelled.wait(30)


@pytest.mark.parametrize("kept", [{}, {"request_id": "mine", "on_disconnect": "keep"}], ids=["any", "kept"])
def test_without_a_deadline_there_is_none(fronted: Fronted, kept: dict[str, str]) -> None:
    """Neither Envoy's usual 15 seconds for an answer nor any other; a day is a day."""
    told: list[tuple[float, set[str]]] = []

    def script(request, context):
        names = {name for name, _ in context.invocation_metadata()}
        told.append((context.time_remaining(), names))
        yield from draw_script(1)(request, context)

    front = fronted(script)
    front.client.generate("a", **kept).images()
    front.client.generate("a", timeout=86_400, **kept).images()
    (none, names), (day, _) = told
    assert "x-forwarded-for" in names  # with the caller's address, which Envoy alone knows
    assert none > 1e9  # of seconds: there is none
    assert "x-envoy-expected-rq-timeout-ms" not in names
    assert 86_000 < day < 87_000  # gRPC rounds it


def test_a_large_picture_passes_in_both_directions(fronted: Fronted) -> None:
    """Of 3 MB and of 15: messages larger than Envoy's buffers."""
    content = bytes(range(256)) * (12 << 10)

    def echo(request, context):
        for event in draw_script(1)(request, context):
            if event.WhichOneof("event") == "image":
                event.image.image.data = 5 * request.image.data
            yield event

    front = fronted(echo)
    (image,) = front.client.transform("a", content).images()
    assert image.image.data == 5 * content


def test_a_broken_connection_is_unavailable_or_internal(fronted: Fronted) -> None:
    """What a server's end looks like; clients resume after both."""

    def die(request, context):
        yield from (event for event, _ in zip(draw_script(3)(request, context), range(3), strict=False))
        context.abort(grpc.StatusCode.UNAVAILABLE, "it ends")

    front = fronted(die)
    seen = []
    with pytest.raises(UnavailableError, match="it ends"):
        seen.extend(front.client.generate("a"))
    assert isinstance(seen[-1], Progress)
    assert front.counts() == [1]  # Envoy does not begin anew what has begun
