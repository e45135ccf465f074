"""A kept job as other servers are told of it, and as they draw it again: what was told before is left out."""

from __future__ import annotations

import asyncio
import secrets
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Hashable, Sequence
from contextlib import aclosing

from sdgrpc.api.codec import KINDS, Request
from sdgrpc.api.jobs.content import Content
from sdgrpc.api.jobs.kept import Draw
from sdgrpc.api.sampling.messages import RANDOM_SEEDS
from sdgrpc.engine.keeping.records import KeptRequest
from sdgrpc.errors import QueueFull
from sdgrpc.v1 import diffusion_pb2 as pb

RETRY_SECONDS = 1.0


def kept_request(request: Request, content: Content, caller: str, deadline: float | None) -> KeptRequest:
    """Return what other servers are told of a request; it gets the seed that it is drawn with.

    `deadline` is a time of the monotonic clock, which other machines do not have.
    """
    if not request.sampling.HasField("seed"):
        request.sampling.seed = secrets.randbelow(RANDOM_SEEDS)
    now = time.time()
    return KeptRequest(
        key=(caller, request.request_id),
        run=uuid.uuid4().hex,
        kind=KINDS[type(request)].value,
        digest=content.digest,
        seed=content.seed,
        drawn_seed=request.sampling.seed,
        request=request.SerializeToString(),
        created=now,
        deadline=None if deadline is None else now + deadline - time.monotonic(),
    )


def request_of(kept: KeptRequest) -> Request:
    """Return the message that is to be drawn."""
    kind = next(kind for kind, name in KINDS.items() if name.value == kept.kind)
    return kind.FromString(kept.request)


def drawn_again(draw: Draw, known: Sequence[pb.JobEvent]) -> Draw:
    """Return what draws a job of which these events were told: it yields the others.

    It was accepted once, so that a full queue is not its readers' to see: it waits for room.
    """

    async def events(previews_wanted: Callable[[], bool]) -> AsyncGenerator[pb.JobEvent, None]:
        seen, place = set(map(identity, known)), len(known)
        has_begun = False
        while True:
            try:
                async with aclosing(draw(previews_wanted)) as drawn:
                    async for event in drawn:
                        has_begun = True
                        if identity(event) not in seen:
                            event.sequence, place = place, place + 1
                            yield event
            except QueueFull:
                if has_begun:
                    raise
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return

    return events


def identity(event: pb.JobEvent) -> Hashable:
    """Return what is the same of an event each time its job is drawn."""
    match kind := event.WhichOneof("event"):
        case "progress":
            return kind, event.progress.step
        case "image":
            return kind, event.image.index
    return kind
