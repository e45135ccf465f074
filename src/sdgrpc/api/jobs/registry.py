"""Every job that outlives its connection: who they are, how long and within which memory they are kept."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial

from sdgrpc.api.codec import KINDS, Request
from sdgrpc.api.jobs.content import Content, other_content
from sdgrpc.api.jobs.kept import Draw, KeptJob
from sdgrpc.api.jobs.log import EventLog
from sdgrpc.engine.keeping.records import KeptRequest
from sdgrpc.errors import JobNotFound, KeepingFull, KeepingOff
from sdgrpc.settings import Settings
from sdgrpc.v1 import diffusion_pb2 as pb

logger = logging.getLogger(__name__)

MOST_JOBS = 10_000
RETRY_SECONDS = 2.0

Key = tuple[str, str]


class KeptJobs:
    """The jobs of every caller, who sees its own alone. Used by the event loop alone.

    A job that ended is forgotten `keep_seconds` later, or, where all that is kept has more than `keep_bytes`,
    before those that ended after it; one that is being read is not forgotten for its memory.
    """

    def __init__(self, settings: Settings) -> None:
        self._seconds, self._budget = settings.keep_seconds, settings.keep_bytes
        self._jobs: dict[Key, KeptJob] = {}
        self._ended: OrderedDict[KeptJob, asyncio.TimerHandle] = OrderedDict()
        self._bytes = 0
        self.on_begin: Callable[[KeptJob], None] = lambda _: None

    @property
    def held_bytes(self) -> int:
        """What the events of all jobs take."""
        return self._bytes

    def all(self) -> Sequence[KeptJob]:
        """Return every caller's jobs, the oldest first."""
        return list(self._jobs.values())

    def of(self, caller: str) -> Sequence[KeptJob]:
        """Return the caller's jobs, the oldest first."""
        return [job for job in self._jobs.values() if job.caller == caller]

    def get(self, caller: str, request_id: str) -> KeptJob:
        """Return a job by its id.

        Raises:
            JobNotFound: the caller has none of that id here.

        """
        job = self._jobs.get((caller, request_id))
        if job is None:
            raise JobNotFound(
                request_id,
                f"no job {request_id!r} is kept here for this caller: it was not sent with "
                f"ON_DISCONNECT_KEEP, or is forgotten (keep_seconds is {self._seconds:g})",
            )
        return job

    def has(self, caller: str, request_id: str) -> bool:
        """Tell whether there is a job of that id."""
        return (caller, request_id) in self._jobs

    def has_any(self, caller: str) -> bool:
        """Tell whether there is a job of that caller."""
        return any(owner == caller for owner, _ in self._jobs)

    def answers(self, caller: str, request_id: str) -> bool:
        """Tell whether a request of that id may be answered by a job that is there; else it is drawn."""
        job = self._jobs.get((caller, request_id))
        return job is not None and not job.is_void

    def find(self, caller: str, request_id: str, content: Content) -> KeptJob | None:
        """Return the job that answers a request already, None where it is to be drawn.

        Raises:
            JobExists: a job of that id is kept, with other content.

        """
        job = self._jobs.get((caller, request_id))
        if job is None:
            return None
        if not content.is_same(job.content, job.drawn_seed):
            raise other_content(request_id)
        if job.is_void:
            self._forget(job)
            return None
        return job

    def start(
        self,
        caller: str,
        request: Request,
        content: Content,
        draw: Draw,
        shared: KeptRequest | None = None,
    ) -> KeptJob:
        """Draw a request whose id is not taken, whoever reads. Other servers are told of it as `shared`.

        Raises:
            KeepingOff: the operator keeps no jobs.
            KeepingFull: those that run hold all the memory.

        """
        if not self._budget:
            raise KeepingOff(
                "this server keeps no jobs (keep_bytes is 0); leave out on_disconnect, or use another"
            )
        if not self._make_room() or len(self._jobs) >= MOST_JOBS:
            raise KeepingFull(
                f"{len(self._jobs)} jobs that are kept hold {self._bytes} bytes (keep_bytes is "
                f"{self._budget}); try again later or on another server",
                retry_after=RETRY_SECONDS,
            )
        job = self._made(caller, request, content, shared)
        self._run(job, request, draw)
        return job

    def resume(
        self, shared: KeptRequest, request: Request, events: Sequence[pb.JobEvent], draw: Draw
    ) -> KeptJob:
        """Draw what follows the events of a job that another server had begun."""
        job = self._made(shared.key[0], request, Content(shared.digest, shared.seed), shared)
        job.was_begun = True
        for event in events:
            job.take(event)
        self._run(job, request, draw)
        return job

    def _made(self, caller: str, request: Request, content: Content, shared: KeptRequest | None) -> KeptJob:
        kind, log = KINDS[type(request)], EventLog(self._count)
        job = KeptJob(caller, request.request_id, kind, content, log, shared=shared)
        if shared is not None:
            job.created = shared.created  # every server tells the same
        self._jobs[caller, job.request_id] = job
        return job

    def _run(self, job: KeptJob, request: Request, draw: Draw) -> None:
        self.on_begin(job)
        job.log.on_left, job.on_end = self._left(job), partial(self._on_end, job)
        job.running = asyncio.create_task(job.run(request, draw, self._make_room))
        job.running.add_done_callback(lambda _: job.stop())  # it may be cancelled before it begins

    def close(self) -> None:
        """End every job and forget it. May be called twice."""
        for job in list(self._jobs.values()):
            if job.running is not None:
                job.running.cancel()
            self._forget(job)

    def _count(self, difference: int) -> None:
        self._bytes += difference

    def _make_room(self) -> bool:
        """Forget jobs that have ended until the rest has room; tell whether it has."""
        if self._fits():
            return True
        for job in [job for job in self._ended if not job.log.readers]:
            self._forget(job)
            if self._fits():
                return True
        return self._bytes <= self._budget

    def _fits(self) -> bool:
        """Whether all that is kept has room, and one job more."""
        return self._bytes <= self._budget and len(self._jobs) < MOST_JOBS

    def _left(self, job: KeptJob) -> Callable[[], None]:
        def left() -> None:
            if job.overflowed and not job.log.readers and job.running is not None:
                job.running.cancel()  # as one that is not kept

        return left

    def _on_end(self, job: KeptJob) -> None:
        error = job.log.error
        reason = "OK" if error is None else error.reason
        logger.info(
            "kept job request_id=%r outcome=%s seconds=%.3f bytes=%d",
            job.request_id,
            reason,
            time.time() - job.created,
            job.log.size,
        )
        if self._jobs.get((job.caller, job.request_id)) is not job:
            return
        if job.accepted is None:  # it was refused: nothing of it is known
            self._forget(job)
            return
        job.expires = time.time() + self._seconds
        loop = asyncio.get_running_loop()
        self._ended[job] = loop.call_later(self._seconds, self._forget, job)

    def _forget(self, job: KeptJob) -> None:
        if self._jobs.get((job.caller, job.request_id)) is job:
            del self._jobs[job.caller, job.request_id]
        timer = self._ended.pop(job, None)
        if timer is not None:
            timer.cancel()
        job.log.drop()
