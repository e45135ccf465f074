"""The outermost layer of every call: whatever a handler raises becomes a status with details.

grpc.aio sends `str(error)` of an unknown exception to the client; here it stays in the log, under an id that
the client is told. Cancellation passes through untouched.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import traceback
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn

import grpc
from google.protobuf.message import Message
from google.rpc import status_pb2
from grpc import aio
from grpc_status import rpc_status

from sdgrpc.api.calls.call import current
from sdgrpc.api.status import status_of
from sdgrpc.errors import OutOfMemory, SdgrpcError, Unexpected

logger = logging.getLogger(__name__)

ABORT_SECONDS = 2.0
SECRETS = ("prompt", "negative_prompt")
Context = aio.ServicerContext[Any, Any]


class FailureInterceptor(aio.ServerInterceptor):
    """Maps SdgrpcError by `status`, and any other exception to INTERNAL with an error id."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:  # noqa: ANN401 - grpc's handlers have no public type
        """Return the call's handler, wrapped."""
        handler = await continuation(handler_call_details)
        if handler is None:  # no such method: UNIMPLEMENTED is grpc's to say
            return None
        method = handler_call_details.method
        for kind in ("unary_unary", "unary_stream", "stream_unary", "stream_stream"):
            behaviour = getattr(handler, kind)
            if behaviour is not None:
                handler = handler._replace(**{kind: _guarded(behaviour, method)})
        return handler


def _guarded(behaviour: Callable[..., Any], method: str) -> Callable[..., Any]:
    """Wrap a handler of either style: a coroutine, or an asynchronous generator."""
    if not inspect.isasyncgenfunction(behaviour):

        async def call(request: Any, context: Context) -> Any:  # noqa: ANN401 - any message or stream
            try:
                return await behaviour(request, context)
            except Exception as error:
                await fail(error, request, context, method)

        return call

    async def stream(request: Any, context: Context) -> AsyncIterator[Any]:  # noqa: ANN401 - as above
        responses = behaviour(request, context)
        try:
            async for response in responses:
                yield response
        except Exception as error:
            await fail(error, request, context, method)
        finally:
            await responses.aclose()

    return stream


async def fail(error: Exception, request: object, context: Context, method: str) -> NoReturn:
    """End the call by the failure's status."""
    if isinstance(error, aio.AbortError):  # the handler has said so itself
        raise error
    failure = named(error, request, method)
    current().failed(failure.code, failure.reason)
    await _abort(context, status_of(failure))


def named(error: Exception, request: object, method: str) -> SdgrpcError:
    """Return the failure by its name; the cause of one that has none is written to the log."""
    if isinstance(error, SdgrpcError):
        return error
    if isinstance(error, MemoryError):
        return OutOfMemory("the server ran out of memory for this call; ask for less, or try another server")
    error_id = uuid.uuid4().hex[:12]
    cause = "".join(traceback.format_exception(error))
    logger.error("error_id=%s method=%s\n%s", error_id, method, scrubbed(cause, request))
    return Unexpected(error_id)


async def _abort(context: Context, status: status_pb2.Status) -> NoReturn:
    described = rpc_status.to_status(status)
    abort = context.abort(described.code, described.details, described.trailing_metadata)
    sending = asyncio.ensure_future(abort)
    sending.add_done_callback(lambda done: done.cancelled() or done.exception())  # seen, if by nobody else
    done, _ = await asyncio.wait([sending], timeout=ABORT_SECONDS)
    error = sending.exception() if done and not sending.cancelled() else None
    if isinstance(error, aio.AbortError):
        raise error
    # The client has gone, or does not read what goes before: grpc sends the status should it ever do so.
    raise asyncio.CancelledError


def scrubbed(text: str, request: object) -> str:
    """The text without the request's prompts: libraries like to quote what they could not handle."""
    if not isinstance(request, Message):
        return text
    for name in SECRETS:
        secret = str(getattr(request, name, ""))
        for written in (secret, repr(secret)[1:-1]):
            if written.strip():
                text = text.replace(written, f"<{name}>")
    return text
