"""Draw: the form becomes jobs, their events become updates of the page."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from sdgrpc.client import (
    AsyncClient,
    AsyncJob,
    DrawnImage,
    Event,
    JobCancelledError,
    Lora,
    Options,
    Progress,
    Result,
    SdgrpcServerError,
)
from sdgrpc.web.page.form import Form, Missing
from sdgrpc.web.page.marks import by_field
from sdgrpc.web.page.stage import Stage

SHOWN_EVERY = 0.05
"""Seconds: twenty previews each second are as many as anybody sees."""
STRIP = (0.0, 0.25, 0.5, 0.75, 1.0)
SEEDS = 2**31
INT64 = 2**63
Asked = Callable[[Options], list[Options]]
"""What one call would take -> what the calls of a drawing take."""


@dataclass(frozen=True)
class Update:
    """What the page shows now; `wrong` are messages by component, `results` come with the end."""

    stage: Stage
    results: tuple[Result, ...] = ()
    wrong: Mapping[str, str] = field(default_factory=dict)
    seed: int | None = None


class Running:
    """Jobs by the page's session. A session that has ended starts none."""

    def __init__(self) -> None:
        self._jobs: dict[str, list[AsyncJob]] = {}

    @contextmanager
    def holding(self, session: str, *jobs: AsyncJob) -> Iterator[None]:
        """Keep jobs for the block; they are closed at its end, however it ends."""
        held = self._jobs.setdefault(session, [])
        held.extend(jobs)
        try:
            yield
        finally:
            for job in jobs:
                job.close()
                held.remove(job)
            if not held:
                self._jobs.pop(session, None)

    def cancel(self, session: str) -> int:
        """Cancel what a page draws: how many jobs that were."""
        jobs = list(self._jobs.get(session, ()))
        for job in jobs:
            job.cancel()
        return len(jobs)


@dataclass
class Artist:
    """Draws for all pages that are open."""

    running: Running

    async def draw(self, client: AsyncClient, form: Form, session: str) -> AsyncGenerator[Update]:
        """Draw what the form says."""
        stage = Stage(int(form.values["count"] or 1), form.values["prompt"] or "")
        async for update in self._drawn(stage, session, form, client, lambda one: [one]):
            yield update

    async def strip(self, client: AsyncClient, form: Form, session: str) -> AsyncGenerator[Update]:
        """Draw five pictures with the first LoRA led from 0 to 1, which share everything else."""
        stage = Stage(len(STRIP), form.values["prompt"] or "")
        try:
            loras = form.loras()
        except Missing as missing:
            stage.ended("failed", str(missing))
            yield Update(stage, wrong={missing.field: str(missing)})
            return
        if not loras:
            stage.ended("failed", "A strip needs a LoRA")
            yield Update(stage, wrong={"loras": "choose the LoRA that the strip leads from 0 to 1"})
            return
        stage.captions = [f"{loras[0].name} {strength:g}" for strength in STRIP]

        def led(options: Options) -> list[Options]:
            options["image_count"] = 1
            return [_at(options, loras, strength) for strength in STRIP]

        async for update in self._drawn(stage, session, form, client, led):
            yield update

    async def _drawn(
        self, stage: Stage, session: str, form: Form, client: AsyncClient, asked: Asked
    ) -> AsyncGenerator[Update]:
        jobs: list[AsyncJob] = []
        try:
            seed = _seed(form)
            each = asked({**form.options(), "seed": seed})
            jobs += [form.start(client, options) for options in each]
            with self.running.holding(session, *jobs):
                yield Update(stage, seed=seed)
                async for shown in _shown(jobs, stage):
                    yield Update(shown, seed=seed)
                results = tuple([await job.result() for job in jobs])
            yield Update(stage, results, seed=seed)
        except JobCancelledError:
            stage.ended("cancelled", "Cancelled")
            yield Update(stage)
        except SdgrpcServerError as error:
            wrong = by_field(error, form.values["mode"])
            stage.ended("failed", wrong.get("") or "; ".join(wrong.values()))
            yield Update(stage, wrong=wrong)
        except Missing as missing:
            stage.ended("failed", str(missing))
            yield Update(stage, wrong={missing.field: str(missing)})
        except ValueError as error:  # what the client refuses to send
            stage.ended("failed", str(error))
            yield Update(stage, wrong={"": str(error)})
        finally:
            for job in jobs:
                job.close()


def _seed(form: Form) -> int:
    """The form's seed where it is kept or was typed, else a new one.

    The lock of a seed that is typed may come to the server after a quick press of Draw.
    """
    said = str(form.values["seed"] or "").strip()
    if not said or not (form.values["locked"] or said != form.values["shown_seed"]):
        return secrets.randbelow(SEEDS)
    if not re.fullmatch(r"-?[0-9]{1,20}", said) or not -INT64 <= int(said) < INT64:
        raise Missing("seed", "a whole number of 64 bits, or nothing for a new one")
    return int(said)


def _at(options: Options, loras: list[Lora], strength: float) -> Options:
    led = replace(loras[0], strength=strength, text_encoder_strength=strength)
    return {**options, "loras": [led, *loras[1:]]}


async def _shown(jobs: list[AsyncJob], stage: Stage) -> AsyncIterator[Stage]:
    """Yield the stage as events of the jobs come, at most every `SHOWN_EVERY` seconds and at their ends."""
    events: asyncio.Queue[tuple[int, Event | BaseException | None]] = asyncio.Queue()

    async def read(index: int, job: AsyncJob) -> None:
        try:
            async for event in job:
                events.put_nowait((index, event))
            events.put_nowait((index, None))
        except SdgrpcServerError as error:
            events.put_nowait((index, error))

    readers = [asyncio.ensure_future(read(index, job)) for index, job in enumerate(jobs)]
    left, last = len(jobs), 0.0
    try:
        while left:
            index, event = await events.get()
            if isinstance(event, BaseException):
                raise event
            if event is None:
                left -= 1
                continue
            stage.take(_placed(event, index))
            now = time.monotonic()
            if not isinstance(event, Progress) or now - last >= SHOWN_EVERY:
                last = now
                yield stage
    finally:
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)


def _placed(event: Event, index: int) -> Event:
    """Put the only picture of a strip's job where it stands in the strip."""
    if index == 0:
        return event
    if isinstance(event, Progress):
        return replace(event, previews=tuple(replace(one, image_index=index) for one in event.previews))
    return replace(event, index=index) if isinstance(event, DrawnImage) else event
