"""What every call of a channel takes along: a bearer token, where it belongs, and its caller's trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from sdgrpc.client.routing import routing
from sdgrpc.client.trace_context import trace_headers

_Channel = TypeVar("_Channel")
_KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


def with_headers(channel: _Channel, token: str | None) -> _Channel:
    """Return the channel as one whose calls bear `authorization: Bearer <token>`, and where they belong.

    What is called is wrapped, not intercepted: intercepted streams of grpc.aio lose their cancellation, and
    grpc's own credentials for calls are refused by a connection without TLS, as to a proxy beside the server.

    Raises:
        ValueError: the token has characters that a header cannot carry.

    """
    check_token(token)
    return cast("_Channel", _Headed(channel, token))


def check_token(token: str | None) -> None:
    """Refuse a token that a header cannot carry, without saying it.

    Raises:
        ValueError: it has other characters than printable ASCII without spaces, or none.

    """
    if token is not None and not (token and token.isascii() and token.isprintable() and " " not in token):
        raise ValueError("the token must be printable ASCII without spaces")


class _Headed:
    """What stubs need of a channel, sync or async; the rest is the channel's."""

    def __init__(self, channel: object, token: str | None) -> None:
        self._channel = channel
        self._metadata = () if token is None else (("authorization", f"Bearer {token}"),)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever a channel has
        found = getattr(self._channel, name)
        return self._headed(found) if name in _KINDS else found

    def _headed(self, kind: Callable[..., Callable[..., object]]) -> Callable[..., object]:
        def multi_callable(*arguments: object, **options: object) -> Callable[..., object]:
            call = kind(*arguments, **options)
            return lambda request, **more: call(
                request, metadata=(*self._metadata, *routing(request), *trace_headers()), **more
            )

        return multi_callable
