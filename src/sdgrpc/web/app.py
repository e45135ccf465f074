"""The app: routes, what failures become, and the client that all of them share."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from sdgrpc.client import AsyncClient, SdgrpcServerError
from sdgrpc.web.failures import SERVER, Refused, refusal
from sdgrpc.web.guard import LOCAL_CALLERS, Callers, Guard
from sdgrpc.web.images import edits, generations
from sdgrpc.web.leaving import CallerLeft
from sdgrpc.web.served import get_model, health, list_models

logger = logging.getLogger("sdgrpc.web")

Endpoint = Callable[[Request], Awaitable[Response]]


def build_app(client: AsyncClient, callers: Callers = LOCAL_CALLERS, *, page: bool = False) -> Starlette:
    """Return the door in front of `client`'s server, with the page if asked; the client is closed with it."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with client:
            yield

    middleware = [Middleware(Guard, callers=callers)]
    if callers.origins:
        origins, allowed = list(callers.origins), ["authorization", "content-type"]
        middleware.append(
            Middleware(CORSMiddleware, allow_origins=origins, allow_methods=["*"], allow_headers=allowed)
        )
    app = Starlette(
        routes=[
            Route("/v1/images/generations", _told(generations), methods=["POST"]),
            Route("/v1/images/edits", _told(edits), methods=["POST"]),
            Route("/v1/models", _told(list_models)),
            Route("/v1/models/{name:path}", _told(get_model)),
            Route("/healthz", _told(health)),
        ],
        middleware=middleware,
        exception_handlers={HTTPException: _no_route},
        lifespan=lifespan,
    )
    app.state.client = client
    app.state.ending = []  # called when the door begins to close
    if page:
        from sdgrpc.web.page import mount_page  # seconds of imports

        mount_page(app, client)
    return app


def _told(endpoint: Endpoint) -> Endpoint:
    """Return the endpoint with its failures as answers."""

    async def answered(request: Request) -> Response:
        try:
            return await endpoint(request)
        except Refused as refused:
            return refused.response()
        except SdgrpcServerError as error:
            return refusal(error).response()
        except (CallerLeft, ClientDisconnect):
            return Response(status_code=499)  # which nobody reads
        except Exception:
            logger.exception("a request failed")
            return Refused(
                "the door failed; its log says why",
                None,
                "internal",
                500,
                SERVER,
                {"x-should-retry": "false"},
            ).response()

    return answered


async def _no_route(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = error.headers if isinstance(error, HTTPException) else None
    detail = error.detail if isinstance(error, HTTPException) else "failed"
    return Refused(detail, None, "not_found", status, headers=headers or {}).response()
