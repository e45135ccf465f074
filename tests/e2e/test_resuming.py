"""Calls that outlive their server, and jobs that outlive their call, with real processes."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest

from sdgrpc.client import Client, Progress
from tests.e2e.test_lifecycle import free_port
from tests.support.server import ServerProcess, running_server


@pytest.fixture
def place() -> tuple[str, ...]:
    """A port that a server can take again, and no shared calls."""
    return "--listen", f"127.0.0.1:{free_port()}", "--no-batching", "--drain-timeout", "0"


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
def test_a_call_outlives_its_server(tmp_path: Path, place: tuple[str, ...], ending: signal.Signals) -> None:
    """Killed or drained in the middle of a job: the next server on the port draws the same bytes."""
    options = {"steps": 40, "image_count": 2, "loras": ["postcard:0.5"]}
    with (
        running_server(tmp_path / "first", *place) as first,
        Client(first.target, resume_seconds=90.0) as client,
    ):
        seen: list[object] = []
        reached = threading.Event()

        def draw() -> None:
            job = client.generate("a red star", **options)
            for event in job:
                seen.append(event)
                if isinstance(event, Progress) and event.step == 3:
                    reached.set()
            seen.append(job.result())

        drawing = threading.Thread(target=draw)
        drawing.start()
        assert reached.wait(60)
        stop(first, ending)
        with running_server(tmp_path / "second", *place) as second:
            drawing.join(120)
            assert not drawing.is_alive()
            result = seen.pop()
            steps = [event.step for event in seen if isinstance(event, Progress)]
            assert steps == list(range(1, 41))
            with Client(second.target) as other:
                seed = result.accepted.sampling.seed  # type: ignore[attr-defined]
                undisturbed = other.generate("a red star", seed=seed, **options).images()
            assert [image.image.data for image in result.images] == [  # type: ignore[attr-defined]
                image.image.data for image in undisturbed
            ]


def stop(server: ServerProcess, ending: signal.Signals) -> None:
    """End a server and wait for it."""
    server.signal(ending)
    server.process.wait(30)


def test_a_job_outlives_its_client(tmp_path: Path) -> None:
    """The real engine draws on without a reader; its previews go to who waits, its bytes to all."""
    with running_server(tmp_path / "log") as server:
        options = {"steps": 12, "seed": 7, "preview": "picture"}
        with Client(server.target) as client:
            request_id = client.generate("a red star", on_disconnect="keep", **options).detach()
        with Client(server.target) as client:
            found = client.attach(request_id).images()
            undisturbed = client.generate("a red star", **options).images()
            assert [image.image.data for image in found] == [image.image.data for image in undisturbed]
            live = list(client.generate("a blue star", on_disconnect="keep", **options))
            assert any(event.previews for event in live if isinstance(event, Progress))
