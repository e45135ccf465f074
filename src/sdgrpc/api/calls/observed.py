"""Around everything else: observers are told of every call, those that are refused included."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc
from grpc import aio

from sdgrpc.api.access.callers import caller, certificate_name
from sdgrpc.api.calls.call import CANCELLED, CURRENT, Call, CallObserver
from sdgrpc.api.calls.methods import method_label
from sdgrpc.api.calls.trace_context import trace_id_of

logger = logging.getLogger(__name__)

Context = aio.ServicerContext[Any, Any]

KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


class ObservingInterceptor(aio.ServerInterceptor):
    """Makes a `Call` of each call, which whatever answers it may complete, and tells the observers."""

    def __init__(self, observers: Sequence[CallObserver]) -> None:
        self._observers = tuple(observers)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:  # noqa: ANN401 - grpc's handlers have no public type
        """Return the call's handler, wrapped."""
        metadata = tuple(handler_call_details.invocation_metadata or ())
        call = Call(method_label(handler_call_details.method), metadata, trace_id=trace_id_of(metadata))
        CURRENT.set(call)
        handler = await continuation(handler_call_details)
        if handler is None:  # no such method: UNIMPLEMENTED is grpc's to say
            call.failed("UNIMPLEMENTED")
            with self._told(call):
                return None
        for kind in KINDS:
            behaviour = getattr(handler, kind)
            if behaviour is not None:
                handler = handler._replace(**{kind: self._observed(behaviour, call)})
        return handler

    def _observed(self, behaviour: Callable[..., Any], call: Call) -> Callable[..., Any]:
        """Wrap a handler of either style: a coroutine, or an asynchronous generator."""
        if not inspect.isasyncgenfunction(behaviour):

            async def answer(request: Any, context: Context) -> Any:  # noqa: ANN401 - any message or stream
                with self._told(call), judged(call, context):
                    return await behaviour(request, context)

            return answer

        async def stream(request: Any, context: Context) -> AsyncIterator[Any]:  # noqa: ANN401 - as above
            responses = behaviour(request, context)
            with self._told(call), judged(call, context):
                try:
                    async for response in responses:
                        yield response
                finally:
                    await responses.aclose()

        return stream

    @contextmanager
    def _told(self, call: Call) -> Iterator[None]:
        call.token = caller()
        for observer in self._observers:
            _tell(observer.begin, call)
        try:
            yield
        finally:
            call.seconds = time.monotonic() - call.began
            for observer in reversed(self._observers):
                _tell(observer.end, call)


@contextmanager
def judged(call: Call, context: Context) -> Iterator[None]:
    """Note where a call comes from and what it ends with, unless that is known already."""
    call.peer, call.client = str(context.peer()), certificate_name(context)
    try:
        yield
    except (asyncio.CancelledError, GeneratorExit):
        left = context.time_remaining()
        call.failed(CANCELLED if left is None or left > 0 else "DEADLINE_EXCEEDED")
        raise
    except BaseException:
        call.failed(_code_of(context) or "UNKNOWN")
        raise
    if code := _code_of(context):
        call.failed(code)


def _code_of(context: Context) -> str:
    """The status that a handler has set, by its name; nothing where that is OK or none."""
    code: Any = context.code()
    if isinstance(code, int):
        code = next((one for one in grpc.StatusCode if one.value[0] == code), None)
    return code.name if isinstance(code, grpc.StatusCode) and code is not grpc.StatusCode.OK else ""


def _tell(tell: Callable[[Call], None], call: Call) -> None:
    try:
        tell(call)
    except Exception:  # whatever it was: watching is not the work
        logger.exception("an observer of calls failed")
