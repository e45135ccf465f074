"""Jobs on replicas: placed, followed, and run again elsewhere where a replica died."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncGenerator, Hashable
from contextlib import aclosing
from typing import Any

from sdgrpc.domain import (
    Accepted,
    Event,
    Finished,
    ImageReady,
    Prepared,
    Progress,
    UpscaleEvent,
    UpscaleProgress,
)
from sdgrpc.engine.cluster.fleet import Fleet, ReplicaDied
from sdgrpc.engine.cluster.jobs import Inside, Job
from sdgrpc.engine.cluster.keeper import Keeper
from sdgrpc.engine.cluster.messages.carrying import Carried
from sdgrpc.engine.cluster.messages.observations import Ended, Observation, tell
from sdgrpc.engine.cluster.placing import Placing
from sdgrpc.engine.cluster.set_names import SetNames
from sdgrpc.engine.observing.observer import JobObserver, Observer
from sdgrpc.errors import Draining, EngineFailed, LoraNotFound, QueueFull, SdgrpcError

logger = logging.getLogger(__name__)

DEATHS = 2
"""How many replicas may die of one job."""
UNHEARD = 0.5
"""What a death counts before the first word of the job: most likely the replica was dead already."""
ELSEWHERE = (QueueFull, Draining, LoraNotFound)
"""Refusals with which another replica may take the job."""


class Moved(Exception):
    """The replica leaves, and the job has not begun there."""


class Runs:
    """Runs jobs on replicas. On one event loop."""

    def __init__(
        self,
        fleet: Fleet,
        placing: Placing,
        keeper: Keeper,
        sets: SetNames,
        inside: Inside,
        observer: Observer,
    ) -> None:
        self._fleet, self._placing, self._keeper, self._sets = fleet, placing, keeper, sets
        self._inside, self._observer = inside, observer
        self._followers: dict[str, JobObserver] = {}

    async def events(self, job: Job) -> AsyncGenerator[Event | UpscaleEvent, None]:
        """Yield a job's events, each once, wherever it runs.

        Raises:
            EngineFailed: `DEATHS` replicas died with it, or none can be started.
            SdgrpcError: as the replica's engine.

        """
        refused: dict[str, SdgrpcError] = {}
        deaths, error = 0.0, None
        try:
            while True:
                name = await self._placing.place(job.wanted, refused, loras=job.loras, patient=bool(job.seen))
                try:
                    async with aclosing(self._on(name, job)) as events:
                        async for event in events:
                            yield event
                    return
                except Moved:
                    continue
                except ReplicaDied:
                    deaths += 1.0 if job.was_answered else UNHEARD
                    self._died(name, deaths)
                except ELSEWHERE as refusal:
                    if job.was_answered:
                        raise
                    if not isinstance(refusal, LoraNotFound) or not await self._placing.fetched(
                        job.loras, name
                    ):
                        refused[name] = refusal
        except Exception as failure:
            error = failure
            raise
        finally:
            if job.is_followed:
                job.follower.ended(error, 0)

    def _died(self, name: str, deaths: float) -> None:
        if self._keeper.is_closed:
            raise EngineFailed("the replicas were ended with the server; send the job to another")
        logger.warning("%s died with a job, which is run again", name)
        self._keeper.lost(name)
        if deaths >= DEATHS:
            raise EngineFailed(f"{DEATHS} replicas died while they drew this job; send it again")

    async def _on(self, name: str, job: Job) -> AsyncGenerator[Event | UpscaleEvent, None]:
        """Yield what is new of a job from one replica; raises ReplicaDied, Moved."""
        number, told = uuid.uuid4().hex, job.previews()
        left = None if job.deadline is None else job.deadline - time.monotonic()
        leaving = self._keeper.enter(name, job.wanted)
        stream, ended, finished, job.was_answered = None, False, None, False
        try:
            stream = self._fleet.stream(name, job.method, number, job.task, left, told)
            async with aclosing(self._messages(stream, name, job, leaving)) as messages:
                async for message in messages:
                    for item in message:
                        if isinstance(item, Observation):
                            self._observed(item, job)
                        elif isinstance(item, Finished):
                            finished = item  # told once nothing more is observed
                        elif (key := identity(item)) not in job.seen:
                            job.seen.add(key)
                            self._note(item, job, number)
                            yield item
                    if (now := job.previews()) != told:
                        told = now
                        self._fleet.tell(name, "previews", number, told)
            ended = True
            if finished is not None:
                self._inside.note_finished(job)
                yield finished
        except (ReplicaDied, SdgrpcError):
            ended = True
            raise
        finally:
            job.began = None
            self._followers.pop(number, None)
            self._keeper.leave(name, job.wanted)
            if stream is not None and not ended:
                self._fleet.drop(stream, name, number)

    async def _messages(
        self,
        stream: Any,  # noqa: ANN401 - Ray's
        name: str,
        job: Job,
        leaving: asyncio.Event,
    ) -> AsyncGenerator[list[Any], None]:
        """Yield messages until the job ended; raises its failure, ReplicaDied, Moved."""
        while True:
            coming = asyncio.ensure_future(self._fleet.next_of(stream, name))
            try:
                if job.began is None and not await before(coming, leaving):
                    raise Moved
                message = await coming
            finally:
                coming.cancel()
            if message is None:
                return
            if isinstance(message, Carried):
                raise message.error()
            job.hear(message)
            yield message

    def _note(self, event: Event | UpscaleEvent, job: Job, number: str) -> None:
        """Learn what an event says of the set, and have the job followed once it is accepted."""
        if isinstance(event, Accepted) and not job.is_followed:
            job.follower, job.is_followed = self._observer.begin(event.task), True
        if isinstance(event, Prepared):
            self._sets.learn(job.wanted, event.lora_set_id)
        self._followers[number] = job.follower

    def _observed(self, observation: Observation, job: Job) -> None:
        if isinstance(observation, Ended):
            job.is_followed = False
        tell(observation, job.follower, self._observer, self._followers)


async def before(work: asyncio.Future[Any], event: asyncio.Event) -> bool:
    """Wait until `work` is done or `event` is set; tell whether it was the work."""
    setting = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait((work, setting), return_when=asyncio.FIRST_COMPLETED)
    finally:
        setting.cancel()
    return work.done()


def identity(event: Event | UpscaleEvent) -> Hashable:
    """Return what is the same of an event each time its job runs: its kind alone, where there is one."""
    match event:
        case Progress():
            return Progress, event.step
        case UpscaleProgress():
            return UpscaleProgress, event.tile
        case ImageReady():
            return ImageReady, event.index
    return type(event).__name__
