"""`/v1/images/generations` and `/v1/images/edits`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from sdgrpc.client import Accepted, AsyncJob, SdgrpcServerError
from sdgrpc.client.events import Event
from sdgrpc.web.answers import Events, images_response
from sdgrpc.web.bodies import form_body, json_body
from sdgrpc.web.drawing import client_of, start
from sdgrpc.web.failures import Refused, refusal
from sdgrpc.web.fields import Asked, read_body
from sdgrpc.web.leaving import unless_left

COMMENT_SECONDS = 15
"""Between comments of a stream, so that nothing on the way takes it for dead."""


async def generations(request: Request) -> Response:
    """Draw from a prompt."""
    body = await json_body(request)
    return await _answer(request, read_body(body, edit=False), "image_generation", None, None)


async def edits(request: Request) -> Response:
    """Redraw an image, or the part of it where the mask is transparent."""
    body = await form_body(request)
    asked = read_body(body, edit=True)
    image, mask = body.get("image"), body.get("mask")
    if not isinstance(image, bytes) or not image:
        raise Refused("image: a file is missing", "image", "missing_required_parameter")
    return await _answer(request, asked, "image_edit", image, mask if isinstance(mask, bytes) else None)


async def _answer(
    request: Request, asked: Asked, kind: str, image: bytes | None, mask: bytes | None
) -> Response:
    client = client_of(request)
    if not asked.stream:

        async def draw() -> Response:
            async with await start(client, asked, image, mask) as job:
                return JSONResponse(images_response(await job.result()))

        return await unless_left(request, draw())

    async def begin() -> Response:
        job = await start(client, asked, image, mask)
        try:
            # What is wrong with the request is told before the stream begins, with a status of its own.
            events = aiter(job)
            accepted = await anext(events)
        except BaseException:
            job.cancel()
            raise
        return _Stream(job, accepted, events, Events(kind, asked.partial_images))

    return await unless_left(request, begin())


class _Stream(EventSourceResponse):
    """The events of a job, which ends with the stream, however that ends."""

    def __init__(self, job: AsyncJob, first: Event, events: AsyncIterator[Event], answers: Events) -> None:
        self._job = job
        super().__init__(_sent(first, events, answers), ping=COMMENT_SECONDS, sep="\n")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._job:
            await super().__call__(scope, receive, send)


async def _sent(
    first: Event, events: AsyncIterator[Event], answers: Events
) -> AsyncIterator[ServerSentEvent]:
    assert isinstance(first, Accepted)  # noqa: S101 - the contract's first event
    answers.of(first)
    try:
        async for event in events:
            for one in answers.of(event):
                yield ServerSentEvent(json.dumps(one), event=one["type"])
    except SdgrpcServerError as error:
        body = {"type": "error", "error": refusal(error).body()}
        yield ServerSentEvent(json.dumps(body), event="error")
