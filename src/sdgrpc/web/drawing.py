"""A body -> a running job, under the token that its caller shows."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from starlette.requests import Request

from sdgrpc.client import AsyncClient, AsyncJob, Lora, PreviewKind, PreviewOptions
from sdgrpc.client.aio import with_token
from sdgrpc.web.failures import Refused
from sdgrpc.web.masks import has_transparency, white_where_transparent

if TYPE_CHECKING:
    from sdgrpc.web.fields import Asked

DECODED_SIDE = 512
"""The longer side of previews by the model's decoder where the picture's size is the server's choice."""


def client_of(request: Request) -> AsyncClient:
    """Return the client with the caller's token where it shows one.

    Raises:
        Refused: its header `authorization` is no bearer token.

    """
    client: AsyncClient = request.app.state.client
    shown = request.headers.get("authorization")
    if shown is None:
        return client
    scheme, _, token = shown.partition(" ")
    try:
        if scheme.lower() != "bearer":
            raise ValueError("the header authorization is `Bearer TOKEN`")
        return with_token(client, token.strip())
    except ValueError as error:
        raise Refused(
            str(error), None, "invalid_api_key", 401, headers={"www-authenticate": "Bearer"}
        ) from None


async def start(client: AsyncClient, asked: Asked, image: bytes | None, mask: bytes | None) -> AsyncJob:
    """Begin to draw: from the prompt alone, over an image, or in an image's masked part."""
    options = dict(asked.options)
    options["model"], lora = await _model_and_lora(client, asked.model)
    if lora:
        options["loras"] = [Lora(lora), *options.get("loras", ())]
    if asked.partial_images:
        options["preview"] = await _previews(client, asked, options)
    if image is None:
        return client.generate(asked.prompt, **options)
    if mask is None and await asyncio.to_thread(has_transparency, image):
        mask = image
    if mask is not None:
        white = await asyncio.to_thread(white_where_transparent, mask)
        return client.inpaint(asked.prompt, image, white, **asked.edit, **options)
    for key in ("mask_blur", "crop_padding"):
        if key in asked.edit:
            raise Refused(f"{key} needs a mask", key)
    return client.transform(asked.prompt, image, **asked.edit, **options)


async def _model_and_lora(client: AsyncClient, name: str) -> tuple[str, str]:
    """Take `model:lora` apart; the server is only asked where there is a colon."""
    if ":" not in name:
        return name, ""
    models = {model.name for model in await client.list_models()}
    if name in models:
        return name, ""
    for cut in reversed([place for place, letter in enumerate(name) if letter == ":"]):
        if name[:cut] in models and name[cut + 1 :]:
            return name[:cut], name[cut + 1 :]
    return name, ""


async def _previews(client: AsyncClient, asked: Asked, options: dict[str, Any]) -> PreviewOptions:
    """Ask for previews about as often as they are shown: those with the model's own decoder cost."""
    steps = options.get("steps")
    if steps is None:
        models = await client.list_models()
        steps = next((one.steps for one in models if options["model"] in ("", one.name)), 0)
    run = steps if not asked.edit else int(steps * asked.edit.get("strength", 0.0))
    every = max(run // (asked.partial_images + 1), 1)
    kind, side = PreviewKind(asked.preview), 0
    if kind is PreviewKind.DECODED:
        side = max(options.get("width", 0), options.get("height", 0)) or DECODED_SIDE
    return PreviewOptions(kind, every_n_steps=every, max_side=side)
