"""Replicas without Ray: in this process, with scripted engines, and as mortal as processes are."""

from __future__ import annotations

import asyncio
import hashlib
import pickle
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from sdgrpc.domain import EngineStatus, Event, LoraInfo, LoraRef, ResidentSet, Task
from sdgrpc.engine.cluster.engine import RayEngine
from sdgrpc.engine.cluster.fleet import ReplicaDied
from sdgrpc.engine.cluster.jobs import Inside
from sdgrpc.engine.cluster.keeper import Keeper
from sdgrpc.engine.cluster.messages.carrying import Carried
from sdgrpc.engine.cluster.replica import Replica
from sdgrpc.engine.cluster.routing.router import Router
from sdgrpc.engine.cluster.running import before
from sdgrpc.engine.cluster.scaling import Scaler, Scaling
from sdgrpc.engine.cluster.set_names import SetNames
from sdgrpc.engine.observing.observer import Observer
from sdgrpc.errors import LoraNotFound
from sdgrpc.settings import Settings
from tests.support.engine import FakeEngine


class FakeLibrary:
    """The files of a scripted engine's catalog; each has the bytes of its name."""

    def __init__(self, engine: LibraryEngine) -> None:
        self._engine = engine

    def find(self, ref: LoraRef) -> LoraInfo:
        for name, info in self._engine.catalog.files.items():
            if name == ref.name or info.sha256 == ref.sha256:
                return replace(info, name=name, sha256=hashlib.sha256(name.encode()).hexdigest())
        raise LoraNotFound(ref.label, f"no LoRA {ref.label!r} here")

    def is_known(self, ref: LoraRef) -> bool:
        return ref.name not in self._engine.unread

    def entry_of(self, file: LoraInfo) -> Any:
        return SimpleNamespace(name=file.name, path=SimpleNamespace(read_bytes=file.name.encode))


class LibraryEngine(FakeEngine):
    """A scripted engine that draws with the files of its catalog, of which some were never read.

    `fused` are its sets.
    """

    unread: tuple[str, ...] = ()
    fused: tuple[ResidentSet, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        self.library = FakeLibrary(self)

    def status(self) -> EngineStatus:
        return replace(super().status(), resident_sets=self.fused)

    async def submit(self, task: Task, **keywords: Any) -> AsyncGenerator[Event, None]:
        self.loras = tuple(self.catalog.files)
        async with aclosing(super().submit(task, **keywords)) as events:
            async for event in events:
                yield event


class FakeFleet:
    """Obeys `Fleet`. What passes is pickled, as it is between processes.

    `engines` are those of the living by name, `starts` counts by name, `deaf` do not answer.
    """

    def __init__(self, engine: Callable[[], Any] = LibraryEngine) -> None:
        self._engine = engine
        self.engines: dict[str, Any] = {}
        self.starts: Counter[str] = Counter()
        self.unopened: Carried | None = None
        self.deaf: set[str] = set()
        self.closed = 0
        self._replicas: dict[str, Replica] = {}
        self._died: dict[str, asyncio.Event] = {}
        self._told: set[asyncio.Future[Any]] = set()

    def start(self, name: str) -> None:
        self.stop(name)
        self.deaf.discard(name)
        self.starts[name] += 1
        made = self.unopened or self._engine()
        replica = Replica(Settings(), name, lambda _settings, _name: made)
        replica._node = "here"
        self.engines[name], self._replicas[name], self._died[name] = made, replica, asyncio.Event()

    def replace(self, name: str, engine: Any) -> None:
        """Give a replica another engine."""
        self.engines[name] = self._replicas[name]._opened = engine

    def stop(self, name: str) -> None:
        if self._replicas.pop(name, None) is not None:
            del self.engines[name]
            self._died.pop(name).set()

    kill = stop

    async def _unless_dead(self, name: str, work: Any) -> Any:
        died, coming = self._died[name], asyncio.ensure_future(work)
        try:
            if not await before(coming, died):
                raise ReplicaDied(name)
            return pickled(await coming)
        finally:
            coming.cancel()

    async def ask(self, name: str, method: str, *args: object) -> Any:
        if name not in self._replicas:
            raise ReplicaDied(name)
        if name in self.deaf:
            await self._unless_dead(name, asyncio.Event().wait())
        return await self._unless_dead(name, getattr(self._replicas[name], method)(*pickled(args)))

    def tell(self, name: str, method: str, *args: object) -> None:
        if name in self._replicas:
            work = asyncio.ensure_future(getattr(self._replicas[name], method)(*pickled(args)))
            self._told.add(work)
            work.add_done_callback(self._told.discard)

    async def served(self, name: str) -> Any:
        return await self.ask(name, "served")

    async def report(self, name: str) -> Any:
        return await self.ask(name, "report")

    async def copy(self, method: str, source: str, taking: str, target: str, *args: object) -> bool:
        return bool(await self.ask(target, taking, await self.ask(source, method, *args)))

    def stream(self, name: str, method: str, *args: object) -> Any:
        if name not in self._replicas:
            raise ReplicaDied(name)
        return getattr(self._replicas[name], method)(*pickled(args))

    async def next_of(self, stream: Any, name: str) -> Any:
        if name not in self._died:
            raise ReplicaDied(name)
        return await self._unless_dead(name, anext(stream, None))

    def drop(self, stream: Any, name: str, job: str) -> None:
        del stream
        self.tell(name, "cancel", job)

    def close(self) -> None:
        self.closed += 1
        for name in list(self._replicas):
            self.stop(name)


def pickled(value: Any) -> Any:
    """What arrives of a value in another process."""
    return pickle.loads(pickle.dumps(value))  # noqa: S301


async def opened(
    fleet: FakeFleet,
    count: int = 2,
    observer: Observer | None = None,
    patience: float = 60.0,
    most_queued: int | None = None,
) -> RayEngine:
    """An engine over so many replicas, where so many jobs of each caller may wait."""
    router, sets = Router(), SetNames()
    keeper = Keeper(fleet, router, sets, patience)
    scaling = Scaling(keeper, Scaler(count, 2 * count))
    keeper.begin(count)
    served = await keeper.opened()
    inside = Inside(most_queued)
    return RayEngine(fleet, router, keeper, scaling, sets, served, observer or Observer(), inside)
