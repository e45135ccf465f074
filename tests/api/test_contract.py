"""The contract as a property: random requests over a real port, a fake engine behind it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Iterator
from fractions import Fraction
from io import BytesIO
from typing import Any

import grpc
import pytest
from grpc import aio
from hypothesis import HealthCheck, given, settings
from PIL import Image

from sdgrpc.v1 import diffusion_pb2 as pb
from tests.support import requests
from tests.support.api import (
    Api,
    check_grammar,
    events_of,
    generate,
    running_api,
    transform,
    violations_of,
)
from tests.support.engine import FakeEngine

METHODS = {pb.GenerateRequest: "Generate", pb.TransformRequest: "Transform", pb.InpaintRequest: "Inpaint"}
Run = Callable[[Callable[[Api], Coroutine[Any, Any, Any]]], Any]

quickly = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def run() -> Iterator[Run]:
    """Run coroutines, one after the other, against one server in one event loop."""
    with asyncio.Runner() as runner:
        served = running_api(FakeEngine(), max_steps=requests.MAX_STEPS)

        async def enter() -> Api:
            return await served.__aenter__()

        async def leave() -> None:
            await served.__aexit__(None, None, None)

        api = runner.run(enter())
        try:
            yield lambda work: runner.run(work(api))
        finally:
            runner.run(leave())


def call(api: Api, request: Any) -> aio.UnaryStreamCall:
    return getattr(api.stub, METHODS[type(request)])(request)


@quickly
@given(request=requests.valid())
def test_events_follow_the_grammar(run: Run, request: Any) -> None:
    """`accepted prepared (progress | image)* finished`, steps and sequence without gaps, every image once."""
    check_grammar(request, run(lambda api: events_of(call(api, request))))


@quickly
@given(request=requests.valid())
def test_answers_are_true_to_the_request(run: Run, request: Any) -> None:
    """Every default is filled in, ids and seeds are kept, images are of the format and size accepted."""
    events = run(lambda api: events_of(call(api, request)))
    accepted, sampling = events[0].accepted, request.sampling
    ids = {event.request_id for event in events}
    assert ids == {request.request_id} if request.request_id else (len(ids) == 1 and ids != {""})
    assert accepted.model == "fake"
    assert accepted.sampling.steps == (sampling.steps or 4)
    assert accepted.sampling.image_count == (sampling.image_count or 1)
    assert accepted.sampling.clip_skip == sampling.clip_skip
    assert accepted.sampling.scheduler == (sampling.scheduler or pb.SCHEDULER_EULER)
    assert accepted.sampling.sigma_spacing == (sampling.sigma_spacing or pb.SIGMA_SPACING_DEFAULT)
    guidance = sampling.guidance_scale if sampling.HasField("guidance_scale") else 5.0
    assert accepted.sampling.guidance_scale == guidance
    assert accepted.sampling.seed == (sampling.seed if sampling.HasField("seed") else accepted.sampling.seed)
    assert (accepted.width, accepted.height) in sizes_of(request)
    for event in events:
        if event.WhichOneof("event") == "image":
            assert event.image.seed == accepted.sampling.seed + event.image.index
            assert event.image.image.media_type == (request.output.media_type or "image/png")
            with Image.open(BytesIO(event.image.image.data)) as image:
                assert image.size == (accepted.width, accepted.height)
                assert image.get_format_mimetype() == event.image.image.media_type


def sizes_of(request: Any) -> list[tuple[int, int]]:
    """What may be drawn for each input that `valid` makes, as the contract says of sides that are 0."""
    width, height = request.width, request.height
    if isinstance(request, pb.GenerateRequest):
        return [(width or 64, height or 64)]
    if not width and not height:
        return [(64, 64), (64, 128), (96, 64)]
    shares = [Fraction(*size) for size in ((64, 64), (71, 130), (96, 64))]
    return [(width or nearest(height * share), height or nearest(width / share)) for share in shares]


def nearest(side: Fraction) -> int:
    """The nearest multiple of 8, of two the larger."""
    return math.floor(side / 8 + Fraction(1, 2)) * 8


@quickly
@given(request=requests.valid())
def test_previews_come_when_asked_for(run: Run, request: Any) -> None:
    """One per image, of the kind asked for, at every nth step but the last."""
    events = run(lambda api: events_of(call(api, request)))
    options = request.output.preview
    for event in events:
        if event.WhichOneof("event") != "progress":
            continue
        progress = event.progress
        due = progress.step < progress.step_count and progress.step % (options.every_n_steps or 1) == 0
        count = (request.sampling.image_count or 1) if due and options.kind else 0
        assert [preview.image_index for preview in progress.previews] == list(range(count))
        content = "latent" if options.kind == pb.PREVIEW_KIND_LATENT else "picture"
        assert {preview.WhichOneof("content") for preview in progress.previews} <= {content}


@quickly
@given(spoilt=requests.spoilt())
def test_what_is_wrong_is_named(run: Run, spoilt: tuple[object, set[str]]) -> None:
    """INVALID_ARGUMENT names exactly the spoilt fields (a list too long aside), and nothing is drawn."""
    request, names = spoilt

    async def refused(api: Api) -> aio.AioRpcError:
        before = len(api.engine.tasks)
        with pytest.raises(aio.AioRpcError) as caught:
            await events_of(call(api, request))
        assert len(api.engine.tasks) == before
        return caught.value

    error = run(refused)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert set(violations_of(error)) == names


async def test_seeds_are_random_unless_given() -> None:
    """Two requests without a seed draw from different ones, and the seed is reported."""
    async with running_api(FakeEngine()) as api:
        seeds = [(await events_of(api.stub.Generate(generate())))[0].accepted.sampling.seed for _ in range(4)]
        assert len(set(seeds)) > 1
        assert [task.sampling.seed for task in api.engine.tasks] == seeds


async def test_floats_are_as_the_client_wrote_them() -> None:
    """0.7 of 10 steps are 7, although float32's 0.7 is a little less."""
    async with running_api(FakeEngine()) as api:
        request = transform(strength=0.7, sampling=pb.Sampling(steps=10, guidance_scale=7.1))
        events = await events_of(api.stub.Transform(request))
        assert events[0].accepted.step_count == 7
        assert api.engine.tasks[0].sampling.guidance_scale == 7.1
