"""What every request passes: whose pages may call, how much a body may hold, and headers for browsers."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sdgrpc.client.trace_context import passing_on
from sdgrpc.web.failures import Refused
from sdgrpc.web.unread import Lingering

MAX_JSON_BYTES = 4 << 20
MAX_FORM_BYTES = 72 << 20
"""Two pictures of the 32 MiB that a server takes, and the fields."""

SECURITY_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
API = ("/v1/", "/healthz")
PAGE_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
"""The page's libraries make functions and styles as they run; other hosts stay shut."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Callers:
    """The names that the door goes by (None: any), and the origins of pages that may call it (`*`: any).

    A name that is not its own is how a page reaches a door on loopback: through a host name of the page's
    that leads there. Forms need no leave of CORS, so pages of other origins are refused here.
    """

    hosts: Collection[str] | None = LOOPBACK
    origins: Collection[str] = ()

    def check(self, headers: Headers) -> None:
        """Refuse a request that a foreign page makes.

        Raises:
            Refused: its host or its origin is another.

        """
        host = headers.get("host", "")
        if self.hosts is not None and _name(f"//{host}") not in self.hosts:
            raise Refused("the door does not go by the request's host", None, "invalid_host", 421)
        origin = headers.get("origin")
        if origin is None or origin in self.origins or "*" in self.origins:
            return
        if _netloc(origin) != host.lower():
            raise Refused("pages of this origin may not call; see --cors", None, "invalid_origin", 403)


LOCAL_CALLERS = Callers()
"""Programs of this machine."""


@dataclass
class Guard:
    """The middleware around everything."""

    app: ASGIApp
    callers: Callers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request through, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if not scope["path"].startswith(API):
                    headers["content-security-policy"] = PAGE_POLICY
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        headers = Headers(scope=scope)
        lingering = Lingering(receive, secured)
        try:
            self.callers.check(headers)
            limited = _limited(headers, lingering.receive)
        except Refused as refused:
            await refused.response()(scope, lingering.receive, lingering.send)
            return
        with passing_on(headers):
            await self.app(scope, limited, lingering.send)


def _limited(headers: Headers, receive: Receive) -> Receive:
    """Return a `receive` that stops at the limit; what is announced as more is refused at once."""
    form = headers.get("content-type", "").startswith("multipart/")
    limit = MAX_FORM_BYTES if form else MAX_JSON_BYTES
    announced = headers.get("content-length", "0")
    if not announced.isdecimal() or int(announced[:20]) > limit:
        raise too_large(limit)
    taken = 0

    async def counted() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > limit:
            raise too_large(limit)
        return message

    return counted


def too_large(limit: int) -> Refused:
    """Return the refusal of a body; the connection ends with it, for the rest is not read to its end."""
    return Refused(
        f"the body has more than {limit} bytes", None, "body_too_large", 413, headers={"connection": "close"}
    )


def _netloc(origin: str) -> str:
    """Return HOST:PORT of an origin; empty for what is none."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _name(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None
