"""Messages of a stream become typed events."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdgrpc import client as api
from sdgrpc.client import Client
from sdgrpc.testing.server import (
    scripted_server,
)
from sdgrpc.v1 import diffusion_pb2 as pb


def test_events_are_typed_and_in_order(client) -> None:
    """Iterating yields the events of the contract as dataclasses, with seconds as floats."""
    events = list(
        client.generate("a star", loras=["postcard:0.5"], seed=41, image_count=2, preview="picture")
    )
    kinds = ["Accepted", "Prepared", *["Progress"] * 3, *["DrawnImage"] * 2, "Finished"]
    assert [type(event).__name__ for event in events] == kinds
    accepted, prepared, progress, finished = events[0], events[1], events[2], events[-1]
    assert (accepted.request_id, accepted.queue_position, accepted.step_count) == ("made-up", 2, 3)
    assert (accepted.sampling.scheduler, accepted.width, accepted.height) == (api.Scheduler.EULER, 128, 64)
    (report,) = prepared.loras
    assert (report.name, report.modules, report.warnings) == ("postcard", {"unet": 42}, ("alpha is 0",))
    assert prepared.fuse_seconds == 0.25
    assert (progress.step, progress.timestep, progress.remaining_seconds) == (1, 998, 2)
    assert api.open_image(progress.previews[0].content).size == (8, 8)
    assert events[4].previews == ()
    assert [image.seed for image in events[5:7]] == [41, 42]
    assert (finished.denoised_seconds, finished.largest_batch, finished.unet_calls) == (1.5, 2, 3)
    assert accepted.sampling.guidance_interval is accepted.sampling.step_reuse is None


def test_accepted_says_what_work_is_left_out(client) -> None:
    """Shares are the decimals that were sent."""
    options = {"guidance_interval": api.GuidanceInterval(0.1, 0.8), "step_reuse": api.StepReuse(2)}
    accepted = next(iter(client.generate("a star", **options)))
    assert accepted.sampling.guidance_interval == api.GuidanceInterval(0.1, 0.8)
    assert accepted.sampling.step_reuse == api.StepReuse(2, order=1)


def test_latent_previews_are_arrays(client) -> None:
    """A latent preview arrives as the array that the contract describes."""
    previews = [
        event.previews
        for event in client.generate("a star", preview="latent")
        if isinstance(event, api.Progress) and event.previews
    ]
    assert previews[0][0].content == api.LatentArray(4, 2, 2, b"\0" * 32)


def test_images_can_be_saved_and_opened(client, tmp_path: Path) -> None:
    """An image is written as it was sent, and decodes."""
    job = client.generate("a star")
    for _ in job:
        continue
    (image,) = job.images()
    image.save(tmp_path / "star.png")
    assert (tmp_path / "star.png").read_bytes() == image.image.data
    assert image.open().getpixel((0, 0)) == (200, 30, 30)


def test_a_stream_without_its_end_is_an_error() -> None:
    """A stream that just stops is not a result."""

    def script(_request: object, _context: object):
        yield pb.JobEvent(accepted=pb.Accepted(sampling=pb.Sampling(scheduler=1, sigma_spacing=1)))
        yield pb.JobEvent()  # an event of a newer contract is passed over

    incomplete = pytest.raises(api.IncompleteAnswerError, match="before `finished`")
    with scripted_server(script) as server, Client(server.target) as client, incomplete:
        client.generate("a star").images()
