"""How much prompts may say as the steps go is judged before anything is queued."""

from __future__ import annotations

import threading

import pytest

from sdgrpc.api.validate import read
from sdgrpc.v1 import catalog_pb2
from sdgrpc.v1 import diffusion_pb2 as pb
from tests.api.prompts.test_wording import REQUESTS, faults_of, task_of
from tests.support.api import (
    events_of,
    failure_of,
    generate,
    inpaint,
    running_api,
    transform,
    violations_of,
)
from tests.support.engine import FakeEngine

MANY = "[" + "|".join(map(str, range(70))) + "]"
WORDS = "says 65 different texts in its steps; the most is 64"


def sampling(steps: int, **changes) -> pb.Sampling:
    return pb.Sampling(steps=steps, **changes)


@pytest.mark.parametrize("request_of", REQUESTS)
def test_both_prompts_of_every_request(request_of) -> None:
    """Each by its name, with how many texts there are and may be."""
    changes = {"prompt": MANY, "negative_prompt": MANY, "sampling": sampling(65)}
    if request_of is not generate:
        changes["strength"] = 1.0
    assert faults_of(request_of(**changes)) == {"prompt": WORDS, "negative_prompt": WORDS}
    changes["sampling"] = sampling(64)
    assert task_of(request_of(**changes)).prompt == MANY


def test_only_steps_that_run_are_counted() -> None:
    """Those that a strength leaves out say nothing, and those of a second pass say more."""
    for request_of in (transform, inpaint):
        assert task_of(request_of(prompt=MANY, sampling=sampling(100), strength=0.5))
        found = faults_of(request_of(prompt=MANY, sampling=sampling(130), strength=0.5))
        assert found == {"prompt": WORDS}
    second = pb.SecondPass(scale=2, steps=65, strength=1.0)
    assert faults_of(generate(prompt=MANY, sampling=sampling(2), second_pass=second)) == {"prompt": WORDS}


def test_what_nobody_is_asked_about_may_say_anything() -> None:
    """Without guidance the negative prompt is not encoded."""
    unguided = sampling(65, guidance_scale=1.0)
    assert task_of(generate(negative_prompt=MANY, sampling=unguided))
    assert task_of(generate(prompt="(many [brackets] here:1.1) " * 100, sampling=sampling(65)))


def test_the_tags_of_a_prompt_are_taken_out_first() -> None:
    """What is in a LoRA's name is no text."""
    prompt = f"<lora:{MANY}:0.5> a cat"
    assert task_of(generate(prompt=prompt, sampling=sampling(65))).prompt == "a cat"
    assert faults_of(generate(prompt=f"<lora:x:0.5>{MANY}", sampling=sampling(65))) == {"prompt": WORDS}


def test_it_is_told_with_the_rest() -> None:
    """Of a request whose picture or output is wrong besides; not where the steps themselves are."""
    changes = {"prompt": MANY, "sampling": sampling(65), "strength": 1.0}
    found = faults_of(transform(**{**changes, "image": pb.Image(data=b"none")}))
    assert set(found) == {"prompt", "image.data"}
    assert set(faults_of(generate(prompt=MANY, sampling=sampling(1000)))) == {"sampling.steps"}


@pytest.mark.parametrize("kind", ["generate", "transform", "inpaint"])
async def test_calls_and_their_plans_are_refused_alike(kind: str) -> None:
    """By the same violation, and nothing reaches the engine."""
    changes = (
        {"sampling": sampling(65)} if kind == "generate" else {"sampling": sampling(130), "strength": 0.5}
    )
    request_of = {"generate": generate, "transform": transform, "inpaint": inpaint}[kind]
    request, engine = request_of(prompt=MANY, **changes), FakeEngine()
    async with running_api(engine) as api:
        call = getattr(api.stub, kind.capitalize())(request)
        drawn = violations_of(await failure_of(call))
        with pytest.raises(Exception, match="INVALID_ARGUMENT") as caught:
            await api.catalog.PlanJob(catalog_pb2.PlanJobRequest(**{kind: request}))
    assert violations_of(caught.value) == drawn == {"prompt": WORDS}
    assert engine.tasks == engine.planned == []


async def test_what_takes_long_to_follow_is_judged_beside_the_event_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As requests with pictures are; others wait for no thread."""
    threads: dict[str, str] = {}

    def noted(request, *rest):
        threads[request.request_id] = threading.current_thread().name
        return read(request, *rest)

    monkeypatch.setattr("sdgrpc.api.servicer.read", noted)
    async with running_api(FakeEngine()) as api:
        for name, prompt in (("many", "[a|b]" * 101), ("few", "[a|b]" * 100)):
            await events_of(api.stub.Generate(generate(prompt=prompt, request_id=name)))
    assert threads["many"].startswith("sdgrpc-request")
    assert threads["few"] == threading.current_thread().name
