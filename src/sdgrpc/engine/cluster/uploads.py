"""Uploads that reach every replica."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from typing import Any

from sdgrpc.domain import LoraInfo, UploadHeader
from sdgrpc.engine.cluster.fleet import Fleet, ReplicaDied
from sdgrpc.engine.cluster.messages.carrying import Carried
from sdgrpc.errors import EngineFailed


class ClusterUpload:
    """One file on its way to all replicas at once. Implements `engine.base.Upload`.

    A replica that dies on the way is left out; it gets the file from another when a job wants it there.
    """

    def __init__(self, fleet: Fleet, names: Sequence[str]) -> None:
        self._fleet, self._names = fleet, list(names)
        self._number = uuid.uuid4().hex

    async def begin(self, header: UploadHeader) -> LoraInfo | None:
        """Open it everywhere; return the file if each replica has it already."""
        answers = await self._each("begin", header)
        if all(isinstance(answer, LoraInfo) for answer in answers.values()):
            return next(iter(answers.values()))  # type: ignore[no-any-return]
        self._names = [name for name, answer in answers.items() if answer is None]
        return None

    async def write(self, chunk: bytes) -> None:
        """See `Upload.write`."""
        await self._each("write", chunk)

    async def commit(self) -> None:
        """See `Upload.commit`: kept on every replica that is there, or the error of the first that cannot."""
        await self._each("commit")
        self.abort()

    def abort(self) -> None:
        """See `Upload.abort`."""
        for name in self._names:
            self._fleet.tell(name, "receive", "abort", self._number)

    async def _each(self, step: str, *args: object) -> dict[str, Any]:
        """Do a step on every replica that lives."""
        asked = [self._asked(name, step, *args) for name in self._names]
        answers = {
            name: answer
            for name, answer in zip(self._names, await asyncio.gather(*asked), strict=True)
            if not isinstance(answer, ReplicaDied)
        }
        if not answers:
            raise EngineFailed("every replica died while the file came; send it again")
        self._names = list(answers)
        for answer in answers.values():
            if isinstance(answer, Carried):
                raise answer.error()
        return answers

    async def _asked(self, name: str, step: str, *args: object) -> Any:  # noqa: ANN401
        try:
            return await self._fleet.ask(name, "receive", step, self._number, *args)
        except ReplicaDied as error:
            return error
