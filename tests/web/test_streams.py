"""Streams as they cross the wire, and when to come again."""

from __future__ import annotations

import base64
import io
import json

import httpx
import openai
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from PIL import Image

from sdgrpc.testing.server import fail_script, scripted_server
from sdgrpc.web import images
from tests.web.conftest import Gate, doored

PATH = "/images/generations"


async def test_comments_keep_a_long_job_s_connection(door, steps: Gate, monkeypatch) -> None:
    """While nothing is to be told, comments come; the official client reads over them."""
    monkeypatch.setattr(images, "COMMENT_SECONDS", 0.05)
    ask = {"prompt": "a star", "stream": True, "steps": 2}
    kinds, comments = [], 0
    async with (
        httpx.AsyncClient(timeout=60) as client,
        client.stream("POST", door.url + PATH, json=ask) as answer,
    ):
        assert answer.headers["content-type"].startswith("text/event-stream")
        async for line in answer.aiter_lines():
            comments += line.startswith(":")
            if comments == 2:
                steps.open.set()
            if line.startswith("data: "):
                kinds.append(json.loads(line.removeprefix("data: "))["type"])
    assert comments >= 2
    assert kinds == ["image_generation.completed"]


async def test_previews_of_the_models_own_decoder(door) -> None:
    """`preview: decoded` has the picture's own size, of the latent's size otherwise."""
    sizes = {}
    async with door.openai() as client:
        for kind in ("picture", "decoded"):
            stream = await client.images.generate(
                prompt="a star",
                size="64x64",
                stream=True,
                partial_images=1,
                extra_body={"steps": 4, "preview": kind},
            )
            partial, _ = [event async for event in stream]
            sizes[kind] = Image.open(io.BytesIO(base64.b64decode(partial.b64_json))).size
    assert sizes["decoded"] == (64, 64)
    assert sizes["picture"][0] < 64


async def test_a_full_queue_says_when_to_come_again() -> None:
    """429 with OpenAI's and HTTP's header, which its clients wait for by themselves."""
    details = [
        error_details_pb2.ErrorInfo(reason="QUEUE_FULL", domain="sdgrpc"),
        error_details_pb2.RetryInfo(retry_delay=Duration(seconds=1, nanos=200_000_000)),
    ]
    with scripted_server(fail_script(8, "the queue is full", details)) as server:
        async with (
            doored(server.target) as root,
            openai.AsyncOpenAI(base_url=f"{root}/v1", api_key="unused", max_retries=0) as client,
        ):
            with pytest.raises(openai.RateLimitError) as caught:
                await client.images.generate(prompt="a star")
    headers = caught.value.response.headers
    assert (headers["retry-after"], headers["retry-after-ms"]) == ("2", "1200")
    assert (caught.value.code, caught.value.type) == ("queue_full", "rate_limit_error")


async def test_a_failure_in_mid_stream_is_its_last_event(door, monkeypatch) -> None:
    """The official client raises it with the server's reason."""

    def broken(*_: object, **__: object) -> object:
        raise RuntimeError("broken")

    monkeypatch.setattr("sdgrpc.engine.runner.decode", broken)
    async with door.openai() as client:
        stream = await client.images.generate(prompt="a star", stream=True, extra_body={"steps": 2})
        with pytest.raises(openai.APIError) as caught:
            async for _ in stream:
                continue
    assert caught.value.type == "server_error"
