"""Which replica a job goes to where nobody is known to hold its set."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from sdgrpc.domain import LoraRef, ResidentLora, ResidentSet
from sdgrpc.engine.cluster import placing
from sdgrpc.engine.cluster.engine import RayEngine
from sdgrpc.engine.cluster.fleet import ReplicaDied
from tests.support.fake_fleet import FakeFleet, opened
from tests.support.tasks import task

INKS = hashlib.sha256(b"inks").hexdigest()
BY_NAME, BY_HASH = LoraRef(0.5, 0.5, name="inks"), LoraRef(0.5, 0.5, sha256=INKS.upper())
FUSED = ResidentSet("set", "fake", 10, in_use=False, loras=(ResidentLora(INKS, 0.5, 0.5),))
NAMES = ("replica-0", "replica-1", "replica-2")


class AskedFleet(FakeFleet):
    """Notes whom was asked whether it holds a set; `dying` die when they are."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.dying: set[str] = set()

    async def ask(self, name: str, method: str, *args: object) -> Any:
        if method == "fused":
            self.asked.append(name)
            if name in self.dying:
                raise ReplicaDied(name)
        return await super().ask(name, method, *args)


@pytest.fixture
def fleet() -> AskedFleet:
    """No replica yet."""
    return AskedFleet()


@pytest.fixture
async def engine(fleet: AskedFleet) -> AsyncIterator[RayEngine]:
    """Three replicas."""
    made = await opened(fleet, count=3)
    yield made
    await made.close()


async def drawn(engine: RayEngine, lora: LoraRef) -> None:
    async for _ in engine.submit(task(model="fake", steps=1, loras=(lora,))):
        pass


def counts(fleet: FakeFleet) -> list[int]:
    """How many jobs each replica had."""
    return [len(fleet.engines[name].tasks) for name in NAMES]


@pytest.mark.parametrize("lora", [BY_NAME, BY_HASH], ids=["name", "hash"])
@pytest.mark.parametrize("holder", NAMES)
async def test_a_set_is_found_though_it_was_fused_by_another_name(
    fleet: AskedFleet, engine: RayEngine, holder: str, lora: LoraRef
) -> None:
    """Wherever it is: every replica is asked once, and who holds it has the job and those after it."""
    fleet.engines[holder].fused = (FUSED,)
    for _ in range(3):
        await drawn(engine, lora)
        for name in engine.keeper.ready:
            engine.keeper.note(name, await fleet.report(name))
    assert counts(fleet) == [3 * (name == holder) for name in NAMES]
    assert sorted(fleet.asked) == sorted(NAMES)


@pytest.mark.parametrize(
    "other",
    [
        LoraRef(0.25, 0.5, name="inks"),
        LoraRef(0.5, 0.25, name="inks"),
        LoraRef(0.5, 0.5, name="dots"),
        LoraRef(0.0, 0.0, name="inks"),
    ],
    ids=["strength", "text encoder", "file", "none"],
)
@pytest.mark.usefixtures("engine")
async def test_another_set_is_not_taken_for_it(fleet: AskedFleet, other: LoraRef) -> None:
    """Of other strengths or another file; nor one of another model."""
    fleet.engines[NAMES[0]].fused = (FUSED,)
    assert await fleet.ask(NAMES[0], "fused", "fake", [other]) == ""
    assert await fleet.ask(NAMES[0], "fused", "other", [BY_NAME]) == ""
    assert await fleet.ask(NAMES[0], "fused", "fake", [BY_NAME]) == "set"


@pytest.mark.usefixtures("engine")
async def test_no_file_is_read_for_an_answer(fleet: AskedFleet) -> None:
    """Of what was never read nothing is fused; nor of what is not there."""
    fleet.engines[NAMES[0]].fused = (FUSED,)
    fleet.engines[NAMES[0]].unread = ("inks",)
    assert await fleet.ask(NAMES[0], "fused", "fake", [BY_NAME]) == ""
    assert await fleet.ask(NAMES[0], "fused", "fake", [LoraRef(0.5, 0.5, name="nowhere")]) == ""


async def test_jobs_that_want_one_set_ask_once(fleet: AskedFleet, engine: RayEngine) -> None:
    """Also where the first of them leaves before there is an answer."""
    fleet.engines[NAMES[1]].fused = (FUSED,)
    first, *others = [asyncio.ensure_future(drawn(engine, BY_NAME)) for _ in range(3)]
    while not fleet.asked:  # noqa: ASYNC110
        await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(*others)
    assert len(fleet.asked) == len(NAMES)
    assert counts(fleet)[1] >= 1
    assert first.cancelled()


async def test_nobody_waits_for_who_is_silent_or_dead(
    fleet: AskedFleet, engine: RayEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer of the others counts, and the job fails by none of it."""
    monkeypatch.setattr(placing, "ASK_SECONDS", 0.01)
    fleet.deaf.add(NAMES[0])
    fleet.dying.add(NAMES[1])
    fleet.engines[NAMES[2]].fused = (FUSED,)
    await drawn(engine, BY_NAME)
    assert counts(fleet) == [0, 0, 1]


async def test_who_is_alone_is_not_asked() -> None:
    """Nor is anybody about a job without LoRAs, or with a file that came along."""
    fleet = AskedFleet()
    engine = await opened(fleet, count=1)
    await drawn(engine, BY_NAME)
    await engine.close()
    fleet = AskedFleet()
    engine = await opened(fleet, count=2)
    async for _ in engine.submit(task(model="fake", steps=1)):
        pass
    await drawn(engine, LoraRef(0.5, 0.5, content=b"a file"))
    assert not fleet.asked
    await engine.close()
