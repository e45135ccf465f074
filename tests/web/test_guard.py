"""What the door lets in, and what it says of itself, over plain HTTP."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from sdgrpc.testing.server import draw_script, scripted_server
from sdgrpc.web.guard import MAX_JSON_BYTES, Callers
from tests.web.conftest import doored

ASK = {"prompt": "a star"}
PATH = "/v1/images/generations"


@pytest.fixture
def server():
    with scripted_server(draw_script()) as running:
        yield running


async def post(root: str, **options) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.post(root + PATH, **options)


async def test_health_follows_the_server(server) -> None:
    """Loading, then serving; and the headers for browsers."""
    async with doored(server.target) as root, httpx.AsyncClient() as client:
        server.serve(False)
        answer = await client.get(f"{root}/healthz", timeout=20)
        assert (answer.status_code, answer.json()) == (503, {"state": "loading"})
        server.serve()
        answer = await client.get(f"{root}/healthz")
        assert (answer.status_code, answer.json()) == (200, {"state": "serving"})
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "https://elsewhere.example"}, 403),
        ({"origin": "null"}, 403),
        ({"host": "elsewhere.example"}, 421),
        ({"authorization": "Basic eDp5"}, 401),
        ({"content-type": "text/plain"}, 415),
    ],
)
async def test_foreign_pages_do_not_draw(server, headers, status) -> None:
    """Neither by a request that needs no leave nor by a name that leads to loopback."""
    async with doored(server.target) as root:
        body = httpx.Request("POST", root, json=ASK).content
        answer = await post(root, content=body, headers={"content-type": "application/json"} | headers)
    assert answer.status_code == status
    assert answer.json()["error"]["message"]
    assert not server.requests
    assert "access-control-allow-origin" not in answer.headers


async def test_pages_that_may_call(server) -> None:
    """Only where it was asked for."""
    origin = {"origin": "https://friend.example"}
    async with doored(server.target, Callers(origins=["https://friend.example"])) as root:
        answer = await post(root, json=ASK, headers=origin)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://friend.example"


async def test_bodies_are_bounded(server) -> None:
    """By what comes, whatever is announced."""

    async def pieces():
        yield b" " * (MAX_JSON_BYTES + 1)

    async with doored(server.target) as root:
        answer = await post(root, content=pieces(), headers={"content-type": "application/json"})
        assert answer.status_code == 413
        assert (await post(root, json=ASK)).status_code == 200


@pytest.mark.parametrize("path", [PATH, "/nothing"])
@pytest.mark.parametrize("announced", [True, False])
async def test_a_refusal_is_heard_before_the_body_is_sent(server, path, announced) -> None:
    """A caller that only sends, megabytes beyond the limit, reads the refusal and not a reset."""
    body = b"x" * (4 * MAX_JSON_BYTES)
    length = f"content-length: {len(body)}" if announced else "transfer-encoding: chunked"
    chunk = body if announced else b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    async with doored(server.target) as root:
        host, port = root.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head = f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n{length}\r\n\r\n"
        writer.write(head.encode() + chunk)
        await writer.drain()
        answer = await reader.readline()
        writer.close()
    assert int(answer.split()[1]) == (413 if path == PATH or announced else 404)


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b"[" * 100_000, b'{"prompt": "\\ud800"}', b'{"prompt": 3}', b"\xff"]
)
async def test_bodies_that_are_none(server, body) -> None:
    """Each gets an error, and the door goes on."""
    async with doored(server.target) as root:
        answer = await post(root, content=body, headers={"content-type": "application/json"})
        assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
        assert (await post(root, json=ASK)).status_code == 200


async def test_the_callers_token_is_passed_on(server) -> None:
    """The server decides; without one the door's own client calls."""
    seen = []
    draw = server.script

    def script(request, context):
        seen.append(dict(context.invocation_metadata()).get("authorization"))
        yield from draw(request, context)

    server.script = script
    async with doored(server.target) as root:
        await post(root, json=ASK, headers={"authorization": "Bearer mine"})
        await post(root, json=ASK)
    assert seen == ["Bearer mine", None]


async def test_no_server_is_503() -> None:
    """With OpenAI's form."""
    async with doored("127.0.0.1:9") as root:
        answer = await post(root, json=ASK, timeout=60)
    assert (answer.status_code, answer.json()["error"]["type"]) == (503, "server_error")


async def test_other_paths_are_404_in_the_same_form(server) -> None:
    """And other methods 405."""
    async with doored(server.target) as root, httpx.AsyncClient() as client:
        for path, status in (("/nothing", 404), (PATH, 405)):
            answer = await client.get(root + path)
            assert (answer.status_code, answer.json()["error"]["type"]) == (status, "invalid_request_error")
