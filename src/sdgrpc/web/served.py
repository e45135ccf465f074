"""What there is: `/v1/models`, and whether the server behind the door takes jobs, `/healthz`."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sdgrpc.client import AsyncClient, UnavailableError
from sdgrpc.web.drawing import client_of
from sdgrpc.web.failures import Refused
from sdgrpc.web.leaving import unless_left

HEALTH_SECONDS = 2.0


async def list_models(request: Request) -> Response:
    """Return the models, each followed by the LoRA files that fit it as `model:lora`."""
    data = await unless_left(request, _models(client_of(request)))
    return JSONResponse({"object": "list", "data": data})


async def get_model(request: Request) -> Response:
    """Return one of them."""
    name = request.path_params["name"]
    for one in await unless_left(request, _models(client_of(request))):
        if one["id"] == name:
            return JSONResponse(one)
    raise Refused(f"there is no model {name[:200]!r}", "model", "model_not_found", 404)


async def health(request: Request) -> Response:
    """Return 200 where the server takes jobs, else 503 and why not."""
    client: AsyncClient = request.app.state.client
    try:
        await unless_left(request, client.wait_until_ready(HEALTH_SECONDS))
    except UnavailableError as error:
        state = "loading" if error.reason == "LOADING" else "unreachable"
        return JSONResponse({"state": state}, 503)
    return JSONResponse({"state": "serving"})


async def _models(client: AsyncClient) -> list[dict[str, object]]:
    listed: list[dict[str, object]] = []
    for model in await client.list_models():
        listed.append(_model(model.name, 0))
        async for lora in client.list_loras(model=model.name, fitting_only=True):
            listed.append(_model(f"{model.name}:{lora.name}", int(lora.modified.timestamp())))  # noqa: PERF401
    return listed


def _model(name: str, created: int) -> dict[str, object]:
    return {"id": name, "object": "model", "created": created, "owned_by": "sdgrpc"}
