"""Jobs that outlive their connection, as tests send them and find them again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from sdgrpc.v1 import diffusion_pb2 as pb
from sdgrpc.v1 import jobs_pb2
from tests.support.api import Api, generate

PICTURES = pb.Output(preview=pb.PreviewOptions(kind=pb.PREVIEW_KIND_PICTURE))


def kept(**changes: Any) -> pb.GenerateRequest:
    """A request whose job outlives its call."""
    return generate(**{"request_id": "mine", "on_disconnect": pb.ON_DISCONNECT_KEEP, **changes})


def attach(api: Api, after: int | None = None, request_id: str = "mine", **options: Any) -> Any:
    request = jobs_pb2.AttachJobRequest(request_id=request_id, after_sequence=after)
    return api.jobs.AttachJob(request, **options)


async def jobs_of(api: Api) -> Sequence[jobs_pb2.Job]:
    return (await api.jobs.ListJobs(jobs_pb2.ListJobsRequest())).jobs


async def until(holds: Callable[[Sequence[jobs_pb2.Job]], bool], api: Api) -> Sequence[jobs_pb2.Job]:
    """The list of jobs as soon as that holds of it."""
    async with asyncio.timeout(20):
        while not holds(jobs := await jobs_of(api)):  # noqa: ASYNC110 - another side's state
            await asyncio.sleep(0.01)
    return jobs


def ended(jobs: Sequence[jobs_pb2.Job]) -> bool:
    return all(job.state >= jobs_pb2.JOB_STATE_FINISHED for job in jobs)


def bare(events: Sequence[pb.JobEvent]) -> list[bytes]:
    """Events as bytes, previews aside."""
    written = []
    for event in events:
        copy = pb.JobEvent.FromString(event.SerializeToString())
        if copy.WhichOneof("event") == "progress":
            copy.progress.ClearField("previews")
        written.append(copy.SerializeToString(deterministic=True))
    return written
