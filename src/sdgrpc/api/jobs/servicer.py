"""JobService: find a job again, read it, end it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

from google.protobuf.message import Message
from grpc import aio

from sdgrpc.api.access.callers import caller
from sdgrpc.api.calls.call import current
from sdgrpc.api.catalog_rules import judge
from sdgrpc.api.field_rules import MAX_NAME, Table
from sdgrpc.api.gate import Gate
from sdgrpc.api.jobs.kept import KeptJob
from sdgrpc.api.jobs.messages import job_message
from sdgrpc.api.jobs.paging import MAX_PAGE, page_of
from sdgrpc.api.jobs.registry import KeptJobs
from sdgrpc.api.rules import name, number, zero_or
from sdgrpc.api.traffic.writing import Writer
from sdgrpc.errors import FieldViolation, InvalidRequest, ReaderStalled, TooManyCalls
from sdgrpc.settings import Settings
from sdgrpc.v1 import jobs_pb2 as pb
from sdgrpc.v1 import jobs_pb2_grpc as pb_grpc

MOST_READERS = 16
MAX_SEQUENCE = 2**63 - 2

Context = aio.ServicerContext[Any, Any]

JOB_TABLES: Mapping[type[Message], Table] = {
    pb.AttachJobRequest: {
        "request_id": name(MAX_NAME, needed=True),
        "after_sequence": number(-1, MAX_SEQUENCE),
    },
    pb.CancelJobRequest: {"request_id": name(MAX_NAME, needed=True)},
    pb.ListJobsRequest: {"page_size": zero_or(number(1, MAX_PAGE)), "page_token": name(4096)},
}


class JobServicer(pb_grpc.JobServiceServicer):
    """Answers about the jobs that are kept; also while the server drains, and before its model is loaded."""

    def __init__(self, settings: Settings, gate: Gate, kept: KeptJobs) -> None:
        self._gate, self._kept = gate, kept
        self._writer = Writer(settings.write_timeout, gate.closing)

    async def AttachJob(  # type: ignore[override]  # noqa: N802 - writes, as DiffusionServicer's calls
        self, request: pb.AttachJobRequest, context: Context
    ) -> None:
        """See the contract."""
        judge(request, JOB_TABLES)
        after = request.after_sequence if request.HasField("after_sequence") else -1
        job = self._kept.get(caller(), request.request_id)
        if job.log.ended and after > job.log.last_sequence:
            raise InvalidRequest(
                [FieldViolation("after_sequence", f"the job ended with event {job.log.last_sequence}")]
            )
        with self._gate.stay():
            await follow(job, after, context, self._writer)

    async def CancelJob(  # noqa: N802
        self, request: pb.CancelJobRequest, context: Context
    ) -> pb.CancelJobResponse:
        """See the contract."""
        del context
        judge(request, JOB_TABLES)
        job = self._kept.get(caller(), request.request_id)
        before = job_message(job)
        job.cancel()
        return pb.CancelJobResponse(job=before)

    async def ListJobs(  # noqa: N802
        self, request: pb.ListJobsRequest, context: Context
    ) -> pb.ListJobsResponse:
        """See the contract."""
        del context
        judge(request, JOB_TABLES)
        jobs, token = page_of(self._kept.of(caller()), request.page_size or MAX_PAGE, request.page_token)
        return pb.ListJobsResponse(jobs=map(job_message, jobs), next_page_token=token)


async def follow(job: KeptJob, after: int, context: Context, writer: Writer) -> None:
    """Write the events of a job after that one until it ends; raises what it failed by.

    Raises:
        TooManyCalls: as many read it already as may.
        ReaderStalled: as `Writer.write`; the job goes on.

    """
    if job.log.readers >= MOST_READERS:
        raise TooManyCalls(f"{MOST_READERS} calls read this job already", retry_after=5.0)
    current().request_id = job.request_id
    async with aclosing(job.log.read(after)) as events:
        async for event in events:
            try:
                await writer.write(context, event)
            except ReaderStalled:
                raise ReaderStalled(
                    "the answer was not read for too long; the job goes on: attach again"
                ) from None
