"""The registry of a Ray, as a front door asks it."""

from __future__ import annotations

import asyncio
import logging
import os
import uuid
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, cast

from sdgrpc.engine.cluster.kept.registry import JobRegistry
from sdgrpc.engine.keeping.records import KeptRequest, Key, Known, Orders, Page, Taken, Telling
from sdgrpc.engine.keeping.sharing import Unreachable
from sdgrpc.settings import Settings

logger = logging.getLogger(__name__)

NAME, NAMESPACE = "kept-jobs-1", "sdgrpc-kept"
"""The number is that of the records: front doors of another one have a registry of their own."""
ANSWER_SECONDS = 3.0
"""How long an answer may take: it may have pictures, come from another machine, and wait a second there."""
QUESTION_SECONDS = 2.0
"""How long one may take that a call waits for."""
HEAD = {"node:__internal_head__": 0.001}
"""Ray's head, without which no front door goes on."""
OPEN_SECONDS = 10.0
"""How long the actor may take to start."""
MANY = 10_000
"""Calls that wait at a time: each reader's, and two of each front door."""


class RayJobs:
    """Implements `SharedJobs` by a detached actor, which is made where there is none.

    Args:
        ray: the module, joined to a Ray.
        settings: what this front door keeps.

    """

    def __init__(self, ray: Any, settings: Settings) -> None:  # noqa: ANN401 - Ray has no types
        self._ray = ray
        self._bounds = settings.keep_seconds, settings.keep_bytes
        self._door = f"{os.getpid()}-{uuid.uuid4().hex[:12]}"
        self._actor: Any = None
        self._making: asyncio.Future[Any] | None = None
        self.is_there = False

    def open(self) -> None:
        """Find the actor or make it. Blocks; raises what Ray raises."""
        options = {
            "name": NAME,
            "namespace": NAMESPACE,
            "lifetime": "detached",
            "get_if_exists": True,
            "num_cpus": 0,
            "resources": HEAD,
            "max_restarts": -1,
            "max_task_retries": 0,
            "max_concurrency": MANY,
        }
        self._actor = self._ray.remote(JobRegistry).options(**options).remote(*self._bounds)

    def open_ahead(self) -> None:
        """Begin to open it, while the replicas start; where that fails it is tried again later."""
        with suppress(Exception):
            self.open()

    async def _ask(self, method: str, *args: object, seconds: float = ANSWER_SECONDS) -> Any:  # noqa: ANN401
        """Call a method of the actor; whatever goes wrong with that is Unreachable, by its kind alone."""
        try:
            async with asyncio.timeout(seconds):
                return await getattr(self._actor, method).remote(*args)
        except Exception as error:  # Ray has many, with tracebacks of other processes for texts
            raise Unreachable(type(error).__name__) from None

    async def _question(self, method: str, *args: object) -> Any:  # noqa: ANN401
        return await self._ask(method, *args, seconds=QUESTION_SECONDS)

    async def claim(self, request: KeptRequest, replaces: str) -> Known | None:
        """See `SharedJobs.claim`."""
        return cast("Known | None", await self._question("claim", self._door, request, replaces))

    async def tell(self, tellings: Sequence[Telling]) -> Sequence[int]:
        """See `SharedJobs.tell`."""
        return cast("Sequence[int]", await self._ask("tell", self._door, tuple(tellings)))

    async def listen(self, *, takes: bool) -> Orders:
        """See `SharedJobs.listen`. Where the actor did not answer, it is looked for or made first."""
        if not self.is_there:
            await self._found()
            await self._ask("find", ("", ""), seconds=OPEN_SECONDS)
            self.is_there = True
        try:
            orders = await self._ask("listen", self._door, *self._bounds, takes)
        except Unreachable:
            self.is_there = False
            raise
        return cast("Orders", orders)

    async def _found(self) -> None:
        """Look for the actor in a thread, which Ray may hold for long: it is the only one."""
        if self._making is None or self._making.done():
            self._making = asyncio.ensure_future(asyncio.to_thread(self.open))
        done, _ = await asyncio.wait([self._making], timeout=ANSWER_SECONDS)
        if not done:
            raise Unreachable("Ray does not answer")
        if (error := self._making.exception()) is not None:
            raise Unreachable(type(error).__name__)

    async def take(self, key: Key) -> Taken | None:
        """See `SharedJobs.take`."""
        return cast("Taken | None", await self._ask("take", self._door, key))

    async def find(self, key: Key) -> Known | None:
        """See `SharedJobs.find`."""
        return cast("Known | None", await self._question("find", key))

    async def read(self, key: Key, run: str, place: int) -> Page | None:
        """See `SharedJobs.read`."""
        return cast("Page | None", await self._ask("read", key, run, place))

    async def jobs_of(self, caller: str, after: tuple[float, str], count: int) -> Sequence[Known]:
        """See `SharedJobs.jobs_of`."""
        return cast("Sequence[Known]", await self._question("jobs_of", caller, after, count))

    async def cancel(self, key: Key, run: str = "") -> Known | None:
        """See `SharedJobs.cancel`."""
        return cast("Known | None", await self._question("cancel", key, run))

    async def leave(self) -> None:
        """See `SharedJobs.leave`."""
        await self._ask("leave", self._door)
