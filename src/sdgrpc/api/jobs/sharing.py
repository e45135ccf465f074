"""Kept jobs that several servers of one cluster share: what this one tells, asks and takes over."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import copy_context
from functools import partial

from sdgrpc.api.access.callers import CALLER
from sdgrpc.api.codec import Request
from sdgrpc.api.jobs.again import drawn_again, request_of
from sdgrpc.api.jobs.elsewhere import LOST, Elsewhere
from sdgrpc.api.jobs.kept import Draw, KeptJob
from sdgrpc.api.jobs.registry import KeptJobs
from sdgrpc.api.jobs.telling import Teller
from sdgrpc.api.waiting import first_of
from sdgrpc.engine.keeping.records import KeptRequest, Key, Known, Orders
from sdgrpc.engine.keeping.sharing import SharedJobs, Unreachable
from sdgrpc.errors import KeepingLost
from sdgrpc.settings import Settings
from sdgrpc.v1 import diffusion_pb2 as pb

logger = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
ORDERS_SECONDS = 0.1
"""Between orders, so that one which takes a while is not given again at once."""
JOIN_SECONDS = 12.0
LEAVE_SECONDS = 1.0

Redraw = Callable[[Request, float | None], Draw]
"""Returns what draws a request by a time of the monotonic clock."""


class Sharing:
    """Nothing is shared until `join`: then each job that is kept is told, and others' are found.

    No job waits for the registry: where it does not answer, this server has its own jobs alone.
    """

    def __init__(self, settings: Settings, kept: KeptJobs) -> None:
        self._kept, self._keep_seconds = kept, settings.keep_seconds
        self._shared: SharedJobs | None = None
        self._readers: Counter[Key] = Counter()
        self._claimed: set[str] = set()
        self._work: list[asyncio.Task[None]] = []
        self._life: str | None = None
        self._is_lost = False
        self._asked_once, self._left = asyncio.Event(), asyncio.Event()

    @property
    def is_on(self) -> bool:
        """Whether there may be other servers."""
        return self._shared is not None

    def may_have(self, caller: str) -> bool:
        """Tell whether a job of that caller may be kept, here or elsewhere."""
        return self.is_on or self._kept.has_any(caller)

    async def join(self, shared: SharedJobs, redraw: Redraw, may_draw: Callable[[], bool]) -> None:
        """Share from now on; `redraw` draws jobs of servers that died, while it `may_draw`.

        Waits a while for the registry: a job that another server has would else be drawn here as well.
        """
        self._shared, self._teller = shared, Teller(shared, self._keep_seconds)
        self._redraw, self._may_draw = redraw, may_draw
        self._kept.on_begin = self._begun
        self._work = [asyncio.ensure_future(self._teller.run()), asyncio.ensure_future(self._listen(shared))]
        await first_of(self._asked_once.wait(), asyncio.sleep(JOIN_SECONDS))

    async def leave(self, *, tells: bool = True) -> None:
        """Tell what is left to tell, and leave the jobs that still run to others. May be called twice.

        Without time to tell (`tells`) the others notice by themselves.
        """
        self._left.set()
        work, self._work = self._work, []
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        if self._shared is not None and work and tells:
            with suppress(Unreachable, TimeoutError):
                async with asyncio.timeout(LEAVE_SECONDS):
                    while await self._teller.tell_some():
                        pass
            with suppress(Unreachable, TimeoutError):
                async with asyncio.timeout(LEAVE_SECONDS):
                    await self._shared.leave()

    async def find(self, caller: str, request_id: str) -> Elsewhere | None:
        """Return another server's job.

        Raises:
            KeepingLost: it is not known whether there is one.

        """
        if self._shared is None:
            return None
        try:
            return self._elsewhere(await self._reached().find((caller, request_id)))
        except Unreachable:
            raise KeepingLost(LOST) from None

    async def find_if_there(self, caller: str, request_id: str) -> Elsewhere | None:
        """Return another server's job, None where nobody can be asked."""
        with suppress(KeepingLost):
            return await self.find(caller, request_id)
        return None

    async def claim(self, request: KeptRequest) -> Elsewhere | None:
        """Be the one who draws a request; return the job that answers it, or has its id, if there is one."""
        replaces = ""
        with suppress(Unreachable):
            while (known := await self._reached().claim(request, replaces)) is not None:
                if not known.is_void or known.request.digest != request.digest:
                    return self._elsewhere(known)
                replaces = known.request.run
            self._claimed.add(request.run)
        return None

    def release(self, request: KeptRequest) -> None:
        """Have a claimed request not known, since it is not drawn."""
        self._claimed.discard(request.run)
        self._teller.refuse(request)

    async def cancel(self, caller: str, request_id: str) -> Known | None:
        """End another server's job; return what it was before. Raises KeepingLost."""
        if self._shared is None:
            return None
        try:
            return await self._reached().cancel((caller, request_id))
        except Unreachable:
            raise KeepingLost(LOST) from None

    async def jobs_of(self, caller: str, after: tuple[float, str], count: int) -> Sequence[Known]:
        """Return the caller's first jobs after a time and an id; none where nobody can be asked."""
        with suppress(Unreachable):
            return await self._reached().jobs_of(caller, after, count)
        return ()

    def readers_of(self, key: Key) -> int:
        """Return how many read another server's job here."""
        return self._readers[key]

    def _reached(self) -> SharedJobs:
        if self._shared is None or not self._shared.is_there:
            raise Unreachable
        return self._shared

    def _elsewhere(self, known: Known | None) -> Elsewhere | None:
        return None if known is None else Elsewhere(self._reached(), known, self._readers, self._left)

    def _begun(self, job: KeptJob) -> None:
        """Tell of a job that begins here."""
        if job.shared is not None:
            job.on_change = partial(self._teller.note, job)
            is_known = job.shared.run in self._claimed
            self._claimed.discard(job.shared.run)
            self._teller.begin(job, job.log.last_sequence + 1, knows_request=is_known)

    async def _listen(self, shared: SharedJobs) -> None:
        """Say that this server lives, and do what it is told; until cancelled."""
        while True:
            try:
                orders = await shared.listen(takes=self._may_draw())
                self._asked_once.set()
                self._found(orders.life)
                await self._obey(shared, orders)
            except Unreachable as error:
                self._asked_once.set()
                self._lost(error)
                await asyncio.sleep(RETRY_SECONDS)
            except Exception:  # a server that is not heard of any more loses its jobs
                logger.exception("an order could not be obeyed")
                await asyncio.sleep(RETRY_SECONDS)

    def _lost(self, error: Unreachable) -> None:
        if not self._is_lost:
            logger.error(
                "kept jobs of the cluster cannot be reached (%s); this server has its own alone", error
            )
        self._is_lost = True

    def _found(self, life: str) -> None:
        if self._is_lost:
            logger.warning("kept jobs of the cluster are reached again")
        if self._life not in (None, life):  # it was started again, and knows nothing
            self._teller.again(self._kept.all())
        self._life, self._is_lost = life, False

    async def _obey(self, shared: SharedJobs, orders: Orders) -> None:
        for key, run in orders.cancels:
            job = self._kept.get(*key) if self._kept.has(*key) else None
            if job is not None and job.shared is not None and job.shared.run == run:
                job.cancel()
        if orders.orphans and self._may_draw():
            await self._take(shared, orders.orphans[0])  # others may take the next
        if orders.cancels or orders.orphans:
            await asyncio.sleep(ORDERS_SECONDS)

    def _keep_own(self, job: KeptJob, taken: KeptRequest, told: int) -> None:
        """Tell of a job that is here already, instead of drawing one of its id."""
        is_same = job.shared is not None and job.shared.run == taken.run  # this server was taken for dead
        if not is_same:  # drawn here too while nobody could be asked
            self._teller.refuse(taken)
        self._teller.begin(job, told if is_same else 0, knows_request=is_same)

    async def _take(self, shared: SharedJobs, key: Key) -> None:
        """Draw a job of a server that died."""
        if (taken := await shared.take(key)) is None:
            return
        request = taken.request
        if self._kept.has(*key):
            self._keep_own(self._kept.get(*key), request, len(taken.events))
            return
        events = [pb.JobEvent.FromString(event) for event in taken.events]
        logger.warning("job request_id=%r of a server that ended is drawn here", key[1])
        left = None if request.deadline is None else request.deadline - time.time()
        deadline = None if left is None else time.monotonic() + left
        message = request_of(request)
        draw = drawn_again(self._redraw(message, deadline), events)
        self._claimed.add(request.run)
        context = copy_context()
        context.run(CALLER.set, key[0])
        context.run(self._kept.resume, request, message, events, draw)
