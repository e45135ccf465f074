"""`jobs list|attach|cancel` and `--keep`, against a server with a fake engine."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator

import pytest

from sdgrpc.client import Client
from tests.support.api import running_api
from tests.support.engine import FakeEngine


@pytest.fixture
def served() -> Iterator[tuple[str, FakeEngine]]:
    """A server in a thread, whose jobs wait before their first step."""
    ready, end = threading.Event(), threading.Event()
    found: list[tuple[str, FakeEngine]] = []

    async def serve() -> None:
        engine = FakeEngine()
        async with running_api(engine) as api:
            found.append((api.server.address, engine))
            ready.set()
            await asyncio.to_thread(end.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(30)
    yield found[0]
    end.set()
    thread.join()


def test_a_picture_is_found_again(run, served, tmp_path) -> None:
    """`--keep` tells an id, by which the list knows the job and `attach` saves its picture."""
    address, _ = served
    drawn = run("generate", "a cat", "--keep", "--server", address, "-o", "first.png")
    assert drawn.exit_code == 0, drawn.output
    request_id = drawn.stderr.split("kept as ")[1].split(":")[0]
    listed = run("jobs", "list", "--server", address)
    heading, row = listed.stdout.splitlines()
    assert heading.split() == ["id", "call", "state", "steps", "pictures", "MiB", "forgotten"]
    assert row.split()[:9] == [request_id, "generate", "finished", "4", "of", "4", "1", "of", "1"]
    (known,) = json.loads(run("jobs", "list", "--json", "--server", address).stdout)
    assert (known["request_id"], known["state"]) == (request_id, "finished")
    found = run("jobs", "attach", request_id, "-o", "second.png", "--server", address)
    assert found.exit_code == 0, found.output
    assert (tmp_path / "second.png").read_bytes() == (tmp_path / "first.png").read_bytes()
    again = run("jobs", "cancel", request_id, "--server", address)
    assert again.stdout == f"{request_id} was finished already\n"


def test_a_job_is_cancelled(run, served) -> None:
    """Whoever attaches then is told."""
    address, engine = served
    engine.gate.clear()
    with Client(address) as client:
        request_id = client.generate("a cat", on_disconnect="keep").detach()
    cancelled = run("jobs", "cancel", request_id, "--server", address)
    assert cancelled.stdout == f"cancelled {request_id} at step 0 of 4\n"
    late = run("jobs", "attach", request_id, "--server", address)
    assert late.exit_code == 1
    assert "JOB_CANCELLED" in late.stderr or "cancelled" in late.stderr


def test_a_job_that_is_not_there(run, served) -> None:
    """A line, no traceback."""
    address, _ = served
    late = run("jobs", "attach", "nothing", "--server", address)
    assert late.exit_code == 1
    assert "no job 'nothing' is kept here" in late.stderr
