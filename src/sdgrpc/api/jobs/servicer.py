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
from sdgrpc.api.jobs.elsewhere import Elsewhere
from sdgrpc.api.jobs.kept import KeptJob
from sdgrpc.api.jobs.messages import job_message, known_message
from sdgrpc.api.jobs.paging import MAX_PAGE, page_of, place_of
from sdgrpc.api.jobs.registry import KeptJobs
from sdgrpc.api.jobs.sharing import Sharing
from sdgrpc.api.rules import name, number, zero_or
from sdgrpc.api.traffic.writing import Writer
from sdgrpc.engine.keeping.records import Known
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

    def __init__(self, settings: Settings, gate: Gate, kept: KeptJobs, sharing: Sharing) -> None:
        self._gate, self._kept, self._sharing = gate, kept, sharing
        self._writer = Writer(settings.write_timeout, gate.closing)

    async def AttachJob(  # type: ignore[override]  # noqa: N802 - writes, as DiffusionServicer's calls
        self, request: pb.AttachJobRequest, context: Context
    ) -> None:
        """See the contract."""
        judge(request, JOB_TABLES)
        after = request.after_sequence if request.HasField("after_sequence") else -1
        job = await self._job(request.request_id)
        if (last := job.ended_with) is not None and after > last:
            raise InvalidRequest([FieldViolation("after_sequence", f"the job ended with event {last}")])
        with self._gate.stay():
            await follow(job, after, context, self._writer)

    async def CancelJob(  # noqa: N802
        self, request: pb.CancelJobRequest, context: Context
    ) -> pb.CancelJobResponse:
        """See the contract."""
        del context
        judge(request, JOB_TABLES)
        who, request_id = caller(), request.request_id
        if not self._kept.has(who, request_id):
            known = await self._sharing.cancel(who, request_id)
            if known is not None:
                return pb.CancelJobResponse(job=self._message(known))
        job = self._kept.get(who, request_id)
        before = job_message(job)
        job.cancel()
        return pb.CancelJobResponse(job=before)

    async def ListJobs(  # noqa: N802
        self, request: pb.ListJobsRequest, context: Context
    ) -> pb.ListJobsResponse:
        """See the contract."""
        del context
        judge(request, JOB_TABLES)
        who, size, after = caller(), request.page_size or MAX_PAGE, place_of(request.page_token)
        others = await self._sharing.jobs_of(who, after, size + 1)
        own = self._kept.of(who)
        ids = {job.request_id for job in own}
        jobs = {(job.created, job.request_id): job_message(job) for job in own}
        for known in others:
            if known.request.key[1] not in ids:
                jobs[known.request.created, known.request.key[1]] = self._message(known)
        page, token = page_of({place: job for place, job in jobs.items() if place > after}, size)
        return pb.ListJobsResponse(jobs=page, next_page_token=token)

    def _message(self, known: Known) -> pb.Job:
        return known_message(known, self._sharing.readers_of(known.request.key))

    async def _job(self, request_id: str) -> KeptJob | Elsewhere:
        """Return a job of this server or of another; raises JobNotFound, KeepingLost."""
        if not self._kept.has(caller(), request_id):
            other = await self._sharing.find(caller(), request_id)
            if other is not None:
                return other
        return self._kept.get(caller(), request_id)


async def follow(job: KeptJob | Elsewhere, after: int, context: Context, writer: Writer) -> None:
    """Write the events of a job after that one until it ends; raises what it failed by.

    Raises:
        TooManyCalls: as many read it already as may.
        ReaderStalled: as `Writer.write`; the job goes on.

    """
    if job.readers >= MOST_READERS:
        raise TooManyCalls(f"{MOST_READERS} calls read this job already", retry_after=5.0)
    current().request_id = job.request_id
    async with aclosing(job.read(after)) as events:
        async for event in events:
            try:
                await writer.write(context, event)
            except ReaderStalled:
                raise ReaderStalled(
                    "the answer was not read for too long; the job goes on: attach again"
                ) from None
