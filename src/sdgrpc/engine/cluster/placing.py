"""Where a job goes: to which replica, and what that one needs for it."""

from __future__ import annotations

from sdgrpc.domain import LoraRef
from sdgrpc.engine.cluster.fleet import Fleet, ReplicaDied
from sdgrpc.engine.cluster.keeper import Keeper
from sdgrpc.engine.cluster.routing.holdings import Wanted
from sdgrpc.engine.cluster.routing.router import Router
from sdgrpc.errors import LoraNotFound, SdgrpcError


class Placing:
    """Chooses replicas, and has files brought to them. On the server's event loop."""

    def __init__(self, fleet: Fleet, router: Router, keeper: Keeper) -> None:
        self._fleet, self._router, self._keeper = fleet, router, keeper

    async def place(self, wanted: Wanted, refused: dict[str, SdgrpcError], *, patient: bool = False) -> str:
        """Choose a replica, waiting until there is one; raises what all of them refused it with.

        A `patient` job was accepted once, so that full queues are not its client's to see: it waits for room.
        """
        while (choice := self._router.choose(wanted, without=refused)) is None:
            if self._keeper.ready:
                refusal = next(iter(refused.values()))
                if not patient or isinstance(refusal, LoraNotFound):
                    raise refusal
                refused.clear()
            await self._keeper.changed()
        return choice.name

    async def fetched(self, loras: tuple[LoraRef, ...], name: str) -> bool:
        """Give a replica the files of a job that others have and it has not; tell whether any came."""
        refs = [ref for ref in loras if not ref.content]
        try:
            copied = [await self._copied(ref, name) for ref in refs]
        except ReplicaDied:
            return False
        return any(copied)

    async def _copied(self, ref: LoraRef, name: str) -> bool:
        if await self._fleet.ask(name, "has", ref):
            return False
        for other in self._keeper.ready:
            if other != name and await self._fleet.ask(other, "has", ref):
                return await self._fleet.copy("content_of", other, "keep", name, ref)
        return False
