"""Requests in: the queue and the budget are asked before a message is received, and before it is parsed.

grpc hands a handler of one request its message when it has all of it in memory, twice. A handler of a stream
is called when the call begins and asks for each message: until then the client waits with at most a window's
bytes. So the calls that draw are served by handlers of streams that take one message, the same on the wire.
The small requests of the other services are received by grpc, and counted before they are parsed; an upload's
messages have no lists.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from grpc import aio

from sdgrpc.api.access.callers import caller
from sdgrpc.api.gate import Gate
from sdgrpc.api.interceptor import fail
from sdgrpc.api.traffic.holding import Holding
from sdgrpc.errors import FieldViolation, InvalidRequest, RequestInterrupted
from sdgrpc.settings import Settings

Context = aio.ServicerContext[Any, Any]

MAX_FIELDS = 1000
"""Of a request, besides its LoRAs; it has a dozen. An empty LoRA is two bytes, and a hundred once parsed."""


class ReceivingInterceptor(aio.ServerInterceptor):
    """Receives the requests of one service's methods that answer with a stream.

    Requests of other services of its package are parsed here too, but received as grpc does. `may_return`
    tells of a caller whether a request of its may be of a job that is kept already, which needs no room.
    """

    def __init__(
        self,
        service: str,
        settings: Settings,
        gate: Gate,
        holding: Holding,
        may_return: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._prefix, self._package = f"/{service}/", f"/{service.rpartition('.')[0]}."
        self._gate, self._holding, self._may_return = gate, holding, may_return
        self._seconds = settings.receive_timeout
        self._most_fields = MAX_FIELDS + settings.max_loras

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:  # noqa: ANN401 - grpc's handlers have no public type
        """Return the call's handler, or one that receives for it."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith(self._package):
            return handler
        if handler.unary_stream is None or not method.startswith(self._prefix):
            return self._counting(handler, method)
        behaviour, parse = handler.unary_stream, handler.request_deserializer

        async def call(_requests: object, context: Context) -> None:
            request = None
            try:
                request = await self._received(context, parse)
                await behaviour(request, context)  # which takes a place of its own before it waits
            except Exception as error:  # told here, where the request's secrets are known
                await fail(error, request, context, method)

        return grpc.stream_stream_rpc_method_handler(call, None, handler.response_serializer)

    def _counting(self, handler: Any, method: str) -> Any:  # noqa: ANN401 - as above
        """A handler of one request that counts its fields before it is parsed."""
        parse = handler.request_deserializer
        for kind in ("unary_unary", "unary_stream"):
            if (behaviour := getattr(handler, kind)) is not None:
                counted = self._counted(behaviour, parse, method)
                return handler._replace(request_deserializer=None, **{kind: counted})
        return handler

    def _counted(
        self, behaviour: Callable[..., Awaitable[Any]], parse: Callable[[bytes], Message], method: str
    ) -> Callable[[bytes, Context], Awaitable[Any]]:
        async def call(data: bytes, context: Context) -> Any:  # noqa: ANN401 - any message
            request = None
            try:
                request = self._parsed(data, parse)
                return await behaviour(request, context)
            except Exception as error:  # as above
                return await fail(error, request, context, method)

        return call

    async def _received(self, context: Context, parse: Callable[[bytes], Message]) -> Message:
        who = caller()
        may_return = self._may_return(who)
        with self._holding.place_or_return(self._gate.engine(), who, may_return=may_return):
            self._holding.check()
            try:
                data = await asyncio.wait_for(context.read(), self._seconds)
            except TimeoutError:
                raise RequestInterrupted(
                    f"the request did not come within {self._seconds:g} s (receive_timeout)"
                ) from None
            if data is aio.EOF:
                raise RequestInterrupted("the call brought no request")
            with self._holding.holding(len(data)):
                return self._parsed(data, parse)

    def _parsed(self, data: bytes, parse: Callable[[bytes], Message]) -> Message:
        if not has_at_most(data, self._most_fields):
            raise InvalidRequest([FieldViolation("", f"has more than {self._most_fields} fields")])
        try:
            return parse(data)
        except DecodeError:
            raise InvalidRequest([FieldViolation("", "is not a message of this method")]) from None


def has_at_most(data: bytes, most: int) -> bool:
    """Tell whether a message in wire format has no more fields than that; those nested are not counted.

    What is not in wire format counts as few: parsing it fails.
    """
    at = 0
    for _ in range(most):
        if at >= len(data):
            return True
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 0:
            _, at = _varint(data, at)
        elif kind == 2:
            length, at = _varint(data, at)
            at += length
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:  # groups, which this contract has not, and nonsense
            return True
    return at >= len(data)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of up to ten bytes and where it ends; the end of the data where it is cut."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            return 0, len(data)
        octet = data[at]
        at += 1
        value |= (octet & 0x7F) << shift
        if octet < 0x80:
            return value, at
    return 0, len(data)
