"""What a server tells of the jobs that it keeps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

from google.protobuf.message import Message

from sdgrpc.v1 import diffusion_pb2
from sdgrpc.v1 import jobs_pb2 as pb


class JobState(Enum):
    """How far a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"


class OnDisconnect(Enum):
    """What a closed stream means for its job."""

    CANCEL = "cancel"
    KEEP = "keep"


@dataclass(frozen=True, slots=True)
class KeptJob:
    """A job that outlives its connection.

    `method` is the call's name, `step` of `step_count` and `images_finished` of `image_count` are done.
    `last_sequence` is that of the last event, -1 where there is none; `readers` are calls that read it now,
    `size_bytes` what its events take. `expires` is set once it ended: then it is forgotten. `failure_reason`
    and `failure_message` are of the failure that ended it, else empty.
    """

    request_id: str
    method: str
    state: JobState
    model: str
    step: int
    step_count: int
    images_finished: int
    image_count: int
    last_sequence: int
    readers: int
    size_bytes: int
    created: datetime
    expires: datetime | None
    failure_reason: str
    failure_message: str


def kept_job(message: pb.Job) -> KeptJob:
    """Decode a job."""
    name = pb.JobState.Name(message.state) if message.state in pb.JobState.values() else ""
    return KeptJob(
        request_id=message.request_id,
        method=message.method,
        state=JobState.__members__.get(name.removeprefix("JOB_STATE_"), JobState.UNKNOWN),
        model=message.model,
        step=message.step,
        step_count=message.step_count,
        images_finished=message.images_finished,
        image_count=message.image_count,
        last_sequence=message.last_sequence,
        readers=message.readers,
        size_bytes=message.size_bytes,
        created=message.created.ToDatetime(UTC),
        expires=message.expires.ToDatetime(UTC) if message.HasField("expires") else None,
        failure_reason=message.failure_reason,
        failure_message=message.failure_message,
    )


def kept_jobs(messages: Iterable[pb.Job]) -> tuple[KeptJob, ...]:
    """Decode a list of jobs."""
    return tuple(map(kept_job, messages))


def attach_request(request_id: str, after_sequence: int | None) -> pb.AttachJobRequest:
    """Build the request for the events after one."""
    return pb.AttachJobRequest(request_id=request_id, after_sequence=after_sequence)


def kept_id(request: Message) -> str:
    """The id by which a request's job is found again; empty where it is not kept."""
    if isinstance(request, pb.AttachJobRequest):
        return request.request_id
    keeps = getattr(request, "on_disconnect", None) == diffusion_pb2.ON_DISCONNECT_KEEP
    return str(getattr(request, "request_id", "")) if keeps else ""
