"""Draw: the form becomes jobs, their events become updates of the page."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from sdgrpc.client import (
    AsyncClient,
    AsyncJob,
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
Asked = Callable[[Options], Options]
"""What the form's call would take -> what the drawing's takes."""


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
        async for update in self._drawn(stage, session, form, client, lambda one: one):
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

        def led(options: Options) -> Options:
            return {**options, "image_count": 0, "loras": [_led(loras[0]), *loras[1:]]}

        async for update in self._drawn(stage, session, form, client, led):
            yield update

    async def _drawn(
        self, stage: Stage, session: str, form: Form, client: AsyncClient, asked: Asked
    ) -> AsyncGenerator[Update]:
        try:
            seed = _seed(form)
            job = form.start(client, asked({**form.options(), "seed": seed}))
            with self.running.holding(session, job):
                yield Update(stage, seed=seed)
                async for shown in _shown(job, stage):
                    yield Update(shown, seed=seed)
                result = await job.result()
            yield Update(stage, (result,), seed=seed)
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


def _led(lora: Lora) -> Lora:
    return replace(lora, strength=None, text_encoder_strength=None, strength_grid=STRIP)


async def _shown(job: AsyncJob, stage: Stage) -> AsyncIterator[Stage]:
    """Yield the stage as events of the job come, steps at most every `SHOWN_EVERY` seconds."""
    last = 0.0
    async for event in job:
        stage.take(event)
        now = time.monotonic()
        if not isinstance(event, Progress) or now - last >= SHOWN_EVERY:
            last = now
            yield stage
