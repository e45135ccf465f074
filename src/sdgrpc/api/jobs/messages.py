"""What is told of a kept job."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from sdgrpc.api.jobs.kept import KeptJob
from sdgrpc.api.status import cut
from sdgrpc.engine.keeping.records import Known
from sdgrpc.v1 import jobs_pb2 as pb


def job_message(job: KeptJob) -> pb.Job:
    """A job as it is now."""
    accepted, error = job.accepted, job.log.error
    return pb.Job(
        request_id=job.request_id,
        method=job.kind.value.capitalize(),
        state=state_of(job),
        model=accepted.model if accepted else "",
        step_count=accepted.step_count if accepted else 0,
        step=job.step,
        image_count=accepted.sampling.image_count if accepted else 0,
        images_finished=job.images_finished,
        last_sequence=job.log.last_sequence,
        readers=job.log.readers,
        size_bytes=job.log.size,
        created=_timestamp(job.created),
        expires=None if job.expires is None else _timestamp(job.expires),
        failure_reason=error.reason if error else "",
        failure_message=cut(error.message) if error else "",
    )


def known_message(known: Known, readers: int) -> pb.Job:
    """A job of another server, as that one told it last; its end may be the registry's word alone.

    `readers` are those at this server.
    """
    request = known.request
    job = pb.Job.FromString(known.job)
    job.readers = readers
    if not known.job:
        job.request_id, job.method = request.key[1], request.kind.capitalize()
        job.state, job.last_sequence = pb.JOB_STATE_QUEUED, -1
        job.created.CopyFrom(_timestamp(request.created))
    if known.has_ended and job.state in (pb.JOB_STATE_QUEUED, pb.JOB_STATE_RUNNING):
        error = known.error
        job.state = pb.JOB_STATE_CANCELLED if known.is_cancelled else pb.JOB_STATE_FAILED
        job.failure_reason, job.failure_message = (error.reason, cut(error.message)) if error else ("", "")
        job.expires.CopyFrom(_timestamp(known.expires))
    return job


def state_of(job: KeptJob) -> pb.JobState.ValueType:
    """How far it is."""
    if not job.log.ended:
        is_prepared = job.log.last_sequence > 0
        return pb.JOB_STATE_RUNNING if is_prepared else pb.JOB_STATE_QUEUED
    if job.log.error is None:
        return pb.JOB_STATE_FINISHED
    return pb.JOB_STATE_CANCELLED if job.cancelled else pb.JOB_STATE_FAILED


def _timestamp(seconds: float) -> Timestamp:
    stamp = Timestamp()
    stamp.FromNanoseconds(round(seconds * 1e9))
    return stamp
