"""Calls that are cut at any event, and go on at the next server."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest

from sdgrpc.client import AsyncClient, Client, DrawnImage, SdgrpcServerError, UnavailableError
from sdgrpc.client.errors import Details, IncompleteAnswerError
from sdgrpc.client.jobs.resuming import MOST_RESUMPTIONS, Resumption, is_cut
from sdgrpc.testing.server import Request, Script, draw_script, scripted_server
from sdgrpc.v1 import diffusion_pb2 as pb
from sdgrpc.v1 import jobs_pb2

EVENTS = 8  # accepted, prepared, three steps, two images, finished


def cut_script(cuts: list[int], code: grpc.StatusCode | None = grpc.StatusCode.UNAVAILABLE) -> Script:
    """Answers that end after so many events, one number per call, and then whole ones."""

    def script(request: Request, context: grpc.ServicerContext) -> Iterator[pb.JobEvent]:
        cut = cuts.pop(0) if cuts else EVENTS
        for count, event in enumerate(draw_script()(request, context)):
            if count == cut:
                if code is None:
                    return
                context.abort(code, "the connection broke")
            yield event

    return script


def kinds(events: list[object]) -> list[str]:
    return [type(event).__name__ for event in events]


WHOLE = ["Accepted", "Prepared", "Progress", "Progress", "Progress", "DrawnImage", "DrawnImage", "Finished"]


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, None])
@pytest.mark.parametrize("cut", range(1, EVENTS))
def test_a_call_that_is_cut_goes_on(cut: int, code: grpc.StatusCode | None) -> None:
    """Each event comes once; the next server is told the seed and the id that were accepted."""
    with scripted_server(cut_script([cut], code)) as server, Client(server.target) as client:
        events = list(client.generate("a cat", image_count=2))
        assert kinds(events) == WHOLE
        first, second = server.requests
        assert (second.sampling.seed, second.request_id) == (1234, "made-up")
        assert not first.sampling.HasField("seed")
        second.sampling.ClearField("seed")
        second.request_id = ""
        assert second == first


@pytest.mark.parametrize("cuts", [[3, 3, 3], [1, 4, 2, 7], [7, 6, 5, 4, 3]])
async def test_a_call_that_is_cut_often_goes_on(cuts: list[int]) -> None:
    """Also where a later server is cut sooner."""
    with scripted_server(cut_script(list(cuts))) as server:
        async with AsyncClient(server.target) as client:
            job = client.generate("a cat", image_count=2)
            events: list[object] = [event async for event in job]
            assert kinds(events) == WHOLE
            assert [image.index for image in await job.images()] == [0, 1]
        assert len(server.requests) == len(cuts) + 1


@pytest.mark.parametrize(("left", "code"), [(0.01, "DEADLINE_EXCEEDED"), (0.2, "INTERNAL")])
def test_a_reset_at_the_deadline_is_the_deadline(left: float, code: str) -> None:
    """A proxy's clock may run ahead; one that comes sooner is what it is, and so is what a server says."""
    now = 0.0
    call = Resumption(pb.GenerateRequest(), seconds=0, timeout=1.0, clock=lambda: now)
    now = 1.0 - left
    assert call.failure_after(SdgrpcServerError("INTERNAL", "RST_STREAM")).code == code
    said = SdgrpcServerError("INTERNAL", "a fault", Details(reason="INTERNAL"))
    assert call.failure_after(said) is said


def test_a_result_is_whole() -> None:
    """What was seen before the cut counts."""
    with scripted_server(cut_script([6])) as server, Client(server.target) as client:
        result = client.generate("a cat", image_count=2).result()
        assert [image.index for image in result.images] == [0, 1]
        assert all(isinstance(image, DrawnImage) for image in result.images)


def test_resuming_can_be_turned_off() -> None:
    """The cut is the call's failure then."""
    with (
        scripted_server(cut_script([3])) as server,
        Client(server.target, resume_seconds=0) as client,
        pytest.raises(UnavailableError, match="the connection broke"),
    ):
        client.generate("a cat").result()
    assert len(server.requests) == 1


def test_before_it_was_accepted_a_call_fails() -> None:
    """There is nothing to go on with, and the caller may choose another server at once."""
    with (
        scripted_server(cut_script([0])) as server,
        Client(server.target) as client,
        pytest.raises(UnavailableError),
    ):
        client.generate("a cat").result()
    assert len(server.requests) == 1


@pytest.mark.parametrize("code", [grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED])
def test_other_failures_are_none_of_its_business(code: grpc.StatusCode) -> None:
    """A server that says why is believed."""
    with (
        scripted_server(cut_script([3], code)) as server,
        Client(server.target) as client,
        pytest.raises(SdgrpcServerError) as caught,
    ):
        client.generate("a cat").result()
    assert caught.value.code == code.name
    assert len(server.requests) == 1


def test_what_ends_every_server_is_not_sent_for_ever() -> None:
    """A job that is cut at the same place each time."""
    with (
        scripted_server(cut_script([3] * 20)) as server,
        Client(server.target) as client,
        pytest.raises(UnavailableError),
    ):
        client.generate("a cat").result()
    assert len(server.requests) == 1 + MOST_RESUMPTIONS


def test_a_server_that_is_gone_is_given_up() -> None:
    """After `resume_seconds`, with the failure that cut the call."""
    with scripted_server(cut_script([3] + [0] * 50)) as server:
        with Client(server.target, resume_seconds=0.5) as client, pytest.raises(UnavailableError):
            client.generate("a cat").result()
        assert 2 <= len(server.requests) < 10


def refused(retry_after: float | None = None) -> UnavailableError:
    return UnavailableError("UNAVAILABLE", "gone", Details(retry_after=retry_after))


def accepted() -> pb.JobEvent:
    return pb.JobEvent(request_id="x", accepted=pb.Accepted(sampling=pb.Sampling(seed=7)))


def test_waits_grow_and_end() -> None:
    """0.1, 0.2, 0.4 … up to 2 s, longer where the server says so; all within `seconds`."""
    now = 100.0
    resumption = Resumption(pb.GenerateRequest(), seconds=10.0, clock=lambda: now)
    assert resumption.is_new(accepted())
    waits = []
    while (wait := resumption.wait_after(refused())) is not None:
        waits.append(wait)
        now += wait
    assert waits[:6] == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0]
    assert sum(waits) <= 10.0
    fresh = Resumption(pb.GenerateRequest(), seconds=10.0, clock=lambda: now)
    fresh.is_new(accepted())
    assert fresh.wait_after(refused(3.0)) == 3.0


def test_the_deadline_is_that_of_the_whole_job() -> None:
    """The next call has what is left of it; without time for the wait there is none."""
    now = 0.0
    resumption = Resumption(pb.GenerateRequest(), timeout=5.0, clock=lambda: now)
    resumption.is_new(accepted())
    now = 4.0
    assert resumption.time_left() == 1.0
    assert resumption.wait_after(refused(2.0)) is None


def test_attaching_goes_on_after_the_last_event() -> None:
    """The server leaves out what was seen."""
    resumption = Resumption(jobs_pb2.AttachJobRequest(request_id="x"))
    resumption.is_new(pb.JobEvent(sequence=4, progress=pb.Progress(step=3)))
    assert isinstance(resumption.request, jobs_pb2.AttachJobRequest)
    assert resumption.request.after_sequence == 4


@pytest.mark.parametrize(
    ("failure", "cut"),
    [
        (refused(), True),
        (IncompleteAnswerError("DATA_LOSS", "short"), True),
        (SdgrpcServerError("INTERNAL", "RST_STREAM"), True),
        (SdgrpcServerError("INTERNAL", "see the log", Details(reason="INTERNAL")), False),
        (SdgrpcServerError("CANCELLED", "by this client"), False),
        (SdgrpcServerError("NOT_FOUND", "no such job"), False),
    ],
)
def test_what_counts_as_cut(failure: SdgrpcServerError, cut: bool) -> None:
    """An end of the server or of the connection, and no answer of a server."""
    assert is_cut(failure) is cut
