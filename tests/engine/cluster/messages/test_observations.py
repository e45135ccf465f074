"""What a replica's engine tells its observers, on its way to those of the front door."""

from __future__ import annotations

import asyncio

from sdgrpc.engine.cluster.messages.observations import FOLLOWED, Observation, Recorder, tell
from sdgrpc.engine.observing.observer import UNOBSERVED, JobObserver, Observer, SharedCall, Stage
from sdgrpc.errors import OutOfMemory
from tests.support.fake_fleet import pickled
from tests.support.tasks import task

CALL = SharedCall("m", 2, 4, 0.5)


class Seeing(JobObserver):
    """Writes down all that it is told."""

    def __init__(self, seen: list[object]) -> None:
        self.seen = seen

    def took(self, stage: Stage, seconds: float) -> None:
        self.seen.append((stage, seconds))

    def read_ahead(self, files: int) -> None:
        self.seen.append(f"{files} ahead")

    def stepped(self, step: int) -> None:
        self.seen.append(step)

    def drew(self, width: int, height: int) -> None:
        self.seen.append((width, height))

    def out_of_memory(self) -> None:
        self.seen.append("memory")

    def ended(self, error: BaseException | None, previews_dropped: int) -> None:
        self.seen.append((type(error), previews_dropped))


class SeeingAll(Observer):
    """Writes down the shared calls."""

    def __init__(self) -> None:
        self.calls: list[object] = []

    def called(self, call: SharedCall, jobs: object) -> None:
        self.calls.append((call, jobs))


async def test_all_that_is_told_arrives() -> None:
    """Through a pickle, with the same numbers, to the job's observer and to the engine's."""
    notes: list[Observation] = []
    others: list[Observation] = []

    async def begun(number: str, into: list[Observation]) -> JobObserver:
        FOLLOWED.set((number, into.append))
        return recorder.begin(task())

    recorder = Recorder()
    one = await asyncio.create_task(begun("1", notes))
    two = await asyncio.create_task(begun("2", others))
    one.took(Stage.FUSED, 0.25)
    one.read_ahead(2)
    one.stepped(3)
    one.drew(64, 32)
    one.out_of_memory()
    recorder.called(CALL, [one, two, UNOBSERVED])
    one.ended(OutOfMemory("large"), 2)
    seen: list[object] = []
    job, other, every = Seeing(seen), Seeing([]), SeeingAll()
    for note in notes:
        tell(pickled(note), job, every, {"1": job, "2": other})
    assert seen == [(Stage.FUSED, 0.25), "2 ahead", 3, (64, 32), "memory", (OutOfMemory, 2)]
    assert every.calls == [(CALL, [job, other])]
    assert not others


def test_a_job_of_nobody_is_not_noted() -> None:
    """Such as a warm-up."""
    assert Recorder().begin(task()) is UNOBSERVED
