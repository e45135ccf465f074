"""Which server Envoy gives a call to."""

from __future__ import annotations

import math
import threading
from itertools import islice

import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2

from sdgrpc.client import Client, QueueFullError, UnavailableError
from sdgrpc.testing import draw_script, fail_script, hang_script
from tests.deploy.conftest import Fronted

SETS = [[f"lora-{number}:0.5"] for number in range(12)]


def test_every_set_stays_at_one_server(fronted: Fronted) -> None:
    """Four jobs of each of twelve sets; both servers have some."""
    front = fronted(draw_script(1), draw_script(1))
    for loras in SETS:
        before = front.counts()
        for prompt in "abcd":
            front.client.generate(prompt, loras=loras).images()
        assert sorted(now - then for now, then in zip(front.counts(), before, strict=True)) == [0, 4]
    assert min(front.counts()) > 0


def test_no_server_gets_much_more_than_its_share(fronted: Fronted) -> None:
    """Of 24 jobs of one set at a time, at most 1.5 times the mean, rounded up, and one are at its server."""
    front = fronted(hang_script(threading.Event()), hang_script(threading.Event()))
    jobs = []
    for _ in range(24):
        jobs.append(front.client.generate("a", loras=SETS[0]))
        next(iter(jobs[-1]))  # accepted
    assert max(front.counts()) <= math.ceil(1.5 * 24 / 2) + 1
    assert sum(front.counts()) == 24
    for job in jobs:
        job.cancel()


def test_jobs_without_loras_go_anywhere(fronted: Fronted) -> None:
    """Of 64, both servers have some: one alone has a chance of 2 ** -63."""
    front = fronted(draw_script(1), draw_script(1))
    for _ in range(64):
        front.client.generate("a").images()
    assert min(front.counts()) > 0


def test_a_kept_job_has_a_place(fronted: Fronted) -> None:
    """Twelve calls at a time under one id are at one server, whatever they draw, and other ids at others."""
    front = fronted(hang_script(threading.Event()), hang_script(threading.Event()))
    jobs = []
    for loras in SETS:
        jobs.append(front.client.generate("a", loras=loras, request_id="mine", on_disconnect="keep"))
        next(iter(jobs[-1]))
    assert sorted(front.counts()) == [0, 12]
    for number in range(12):
        jobs.append(front.client.generate("a", request_id=f"id {number}", on_disconnect="keep"))
        next(iter(jobs[-1]))
    assert min(front.counts()) > 0
    for job in jobs:
        job.close()


def test_what_a_server_refuses_goes_to_the_other(fronted: Fronted) -> None:
    """A full queue and a drain, told before anything was drawn."""
    reasons = {"QUEUE_FULL": code_pb2.RESOURCE_EXHAUSTED, "DRAINING": code_pb2.UNAVAILABLE}
    for reason, code in reasons.items():
        info = error_details_pb2.ErrorInfo(reason=reason, domain="sdgrpc")
        front = fronted(fail_script(code, "not here", [info]), draw_script(1))
        for loras in SETS:
            assert front.client.generate("a", loras=loras).images()
        refused, drawn = front.counts()
        assert refused > 0
        assert drawn == len(SETS)


def test_a_kept_job_begins_where_there_is_room_for_it(fronted: Fronted) -> None:
    """A draining server's new ids go to the other; a full queue is told, since the id's place stays there."""
    info = error_details_pb2.ErrorInfo(reason="DRAINING", domain="sdgrpc")
    front = fronted(fail_script(code_pb2.UNAVAILABLE, "not here", [info]), draw_script(1))
    for number in range(24):
        assert front.client.generate("a", request_id=f"id {number}", on_disconnect="keep").images()
    refused, drawn = front.counts()
    assert refused > 0
    assert drawn == 24
    full = [error_details_pb2.ErrorInfo(reason="QUEUE_FULL", domain="sdgrpc")]
    front = fronted(fail_script(code_pb2.RESOURCE_EXHAUSTED, "full", full), draw_script(1))
    told = 0
    for number in range(24):
        try:
            front.client.generate("a", request_id=f"id {number}", on_disconnect="keep").images()
        except QueueFullError:
            told += 1
    assert front.counts() == [told, 24 - told]
    assert 0 < told < 24


def test_a_refusal_of_all_servers_is_told_whole(fronted: Fronted) -> None:
    """With its reason and when to try again."""
    info = error_details_pb2.ErrorInfo(reason="QUEUE_FULL", domain="sdgrpc")
    retry = error_details_pb2.RetryInfo(retry_delay=Duration(seconds=3))
    full = fail_script(code_pb2.RESOURCE_EXHAUSTED, "full", [info, retry])
    front = fronted(full, full)
    with pytest.raises(QueueFullError, match="full") as caught:
        front.client.generate("a", loras=SETS[0]).images()
    assert caught.value.retry_after == 3


def test_a_server_that_leaves_gets_no_calls_and_comes_back(fronted: Fronted) -> None:
    """Envoy asks health; without a healthy server a call fails at once."""
    front = fronted(draw_script(1), draw_script(1))
    one, other = front.servers
    one.serve(False)
    front.envoy.until_healthy([other.target])
    for loras in SETS:
        front.client.generate("a", loras=loras).images()
    assert front.counts() == [0, len(SETS)]
    other.serve(False)
    front.envoy.until_healthy([])
    with pytest.raises(UnavailableError, match="no healthy upstream"):
        front.client.generate("a", loras=SETS[0]).images()
    one.serve()
    front.envoy.until_healthy([one.target])
    assert front.client.generate("a", loras=SETS[0]).images()


def test_servers_come_and_go_without_a_restart(fronted: Fronted) -> None:
    """A replaced servers.yaml counts, and a job that is being drawn ends as if nothing was."""
    going = threading.Event()

    def slow(request, context):
        events = draw_script(2)(request, context)
        yield from islice(events, 2)
        assert going.wait(30)
        yield from events

    front = fronted(slow, draw_script(1))
    one, other = front.servers
    front.envoy.change_servers([one.target])
    front.envoy.until_healthy([one.target])
    events = iter(front.client.generate("a"))
    next(events)
    front.envoy.change_servers([other.target])
    front.envoy.until_healthy([other.target])
    with Client(front.envoy.target) as client:
        client.generate("b").images()
    assert front.counts() == [1, 1]
    going.set()
    assert [event.step for event in events if hasattr(event, "step")] == [1, 2]
