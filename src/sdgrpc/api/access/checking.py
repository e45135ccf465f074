"""Every call shows a token, but for health's."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import grpc
from grpc import aio

from sdgrpc.api.access.callers import CALLER
from sdgrpc.api.access.reloaded import Reloaded
from sdgrpc.api.access.tokens import Tokens, bearer
from sdgrpc.errors import Unauthenticated

logger = logging.getLogger(__name__)

OPEN_SERVICE = "/grpc.health.v1.Health/"
HEADER = "authorization"
LOG_SECONDS = 10.0

Metadata = Iterable[tuple[str, str | bytes]]


class AccessInterceptor(aio.ServerInterceptor):
    """Refuses calls without a valid token before their first message is read, whatever their method is.

    Unknown methods are refused too, so that nobody learns without a token what there is.
    """

    def __init__(self, tokens: Reloaded[Tokens], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._tokens, self._clock = tokens, clock
        self._refused = 0
        self._logged = float("-inf")

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:  # noqa: ANN401 - grpc's handlers have no public type
        """Return the call's handler, or one that refuses."""
        method = handler_call_details.method
        if method.startswith(OPEN_SERVICE):
            return await continuation(handler_call_details)
        try:
            CALLER.set(self._name(handler_call_details.invocation_metadata or ()))
        except Unauthenticated as refusal:
            self._note(method)
            return refusing(refusal)
        return await continuation(handler_call_details)

    def _name(self, metadata: Metadata) -> str:
        headers = [value for key, value in metadata if key == HEADER]
        if len(headers) != 1:
            raise Unauthenticated("send one header `authorization: Bearer TOKEN`")
        secret = bearer(str(headers[0]))
        if not secret:
            raise Unauthenticated("the header `authorization` is not `Bearer TOKEN`")
        name = self._tokens.get().name_of(secret)
        if not name:
            raise Unauthenticated("the token is not one of this server's")
        return name

    def _note(self, method: str) -> None:
        """Log refusals, together if they are many: whoever sends them must not fill the disk."""
        self._refused += 1
        if self._clock() - self._logged >= LOG_SECONDS:
            logger.warning("refused %d calls without a valid token, the last of %r", self._refused, method)
            self._refused, self._logged = 0, self._clock()


def refusing(refusal: Unauthenticated) -> grpc.RpcMethodHandler[Any, Any]:
    """A handler that raises; one of streams fits calls of every kind, since it reads no message first."""

    async def refuse(request_iterator: object, context: object) -> None:
        del request_iterator, context
        raise refusal

    return grpc.stream_stream_rpc_method_handler(refuse)
