"""Tasks for engine tests, and a device without tensors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence

from sdgrpc.domain import (
    EncodedImage,
    ImageReady,
    Output,
    Prepared,
    PreviewKind,
    PreviewOptions,
    Sampling,
    Scheduler,
    SigmaSpacing,
    Task,
    TaskKind,
)
from sdgrpc.engine.job import CallSize, Job
from sdgrpc.errors import OutOfMemory


def make_task(
    *,
    steps: int = 3,
    image_count: int = 1,
    prompt: str = "a",
    preview: PreviewKind = PreviewKind.NONE,
    **changes,
) -> Task:
    """A Generate task; the prompt names the group of the fake device's jobs."""
    values = {
        "kind": TaskKind.GENERATE,
        "request_id": "r",
        "model": "m",
        "prompt": prompt,
        "negative_prompt": "",
        "loras": (),
        "sampling": Sampling(
            steps, 1.0, Scheduler.EULER, SigmaSpacing.DEFAULT, seed=0, image_count=image_count
        ),
        "output": Output(preview=PreviewOptions(preview)),
        "width": 64,
        "height": 64,
    }
    return Task(**{**values, **changes})


class FakeWork:
    """A generator of requests, and what is told when it is let go."""

    def __init__(self, steps: Generator[str, object, str], release: Callable[[], None]) -> None:
        self.steps, self.release = steps, release
        self.wanted = ""

    def advance(self, prediction: object) -> bool:
        try:
            self.wanted = self.steps.send(prediction)
        except StopIteration:
            return True
        return False

    def close(self) -> None:
        self.steps.close()
        self.release()


def work_of(job: Job) -> FakeWork:
    assert isinstance(job.work, FakeWork)
    return job.work


class FakeRunner:
    """Counts instead of drawing.

    `before_call` runs on the step thread before every call, `before_follow` between two passes.
    A task's prompt is its group; the prompts `bad prepare`, `bad step` and `bad finish` fail there. A call of
    more than `memory_rows` rows runs out of memory; `calls` are those that did not, `rows` their rows.
    """

    def __init__(
        self,
        before_call: Callable[[Sequence[Job]], None] = lambda _: None,
        memory_rows: int = 1000,
        before_follow: Callable[[Job], None] = lambda _: None,
    ) -> None:
        self.before_call, self.before_follow = before_call, before_follow
        self.memory_rows = memory_rows
        self.calls: list[list[int]] = []
        self.rows: list[int] = []
        self.released: list[int] = []
        self.threads: set[str] = set()

    def prepare(self, job: Job) -> bool:
        self.threads.add(threading.current_thread().name)
        if job.task.prompt == "bad prepare":
            raise ValueError(job.task.prompt)
        job.group, job.rows = job.task.prompt, job.task.sampling.image_count
        job.size = CallSize(job.task.model, (job.task.width, job.task.height))
        job.report = Prepared(lora_set_id=job.task.prompt)
        job.work = FakeWork(self._steps(job), lambda: self.released.append(job.job_id))
        return job.work.advance(None)

    def _steps(self, job: Job) -> Generator[str, object, str]:
        count, before = job.task.step_count, job.steps_done
        for step in range(before + 1, before + job.current.step_count + 1):
            prediction = yield f"request {step}"
            assert prediction == f"answer to request {step}", "each job gets the answer to its own request"
            job.progress(step, count, 1000.0 - step, lambda: ())
        return "latents"

    def predict(self, jobs: Sequence[Job], max_rows: int) -> Sequence[object]:
        self.threads.add(threading.current_thread().name)
        self.before_call(jobs)
        rows = min(sum(job.rows for job in jobs), max_rows)
        if rows > self.memory_rows:
            raise OutOfMemory(f"{rows} rows are too many")
        self.rows.append(rows)
        self.calls.append([job.job_id for job in jobs])
        if any(job.task.request_id == "bad step" for job in jobs):
            raise ValueError("bad step")
        return [f"answer to {work_of(job).wanted}" for job in jobs]

    def advance(self, job: Job, prediction: object) -> bool:
        return work_of(job).advance(prediction)

    def follow(self, job: Job, beat: Callable[[], None] = lambda: None) -> bool:
        beat()
        self.threads.add(f"follow: {threading.current_thread().name}")
        self.before_follow(job)
        job.pass_index += 1
        job.size = CallSize(job.task.model, (job.current.width, job.current.height))
        work_of(job).steps = self._steps(job)
        return work_of(job).advance(None)

    def finish(self, job: Job) -> None:
        self.threads.add(threading.current_thread().name)
        if job.task.prompt == "bad finish":
            raise ValueError(job.task.prompt)
        for index in range(job.task.sampling.image_count):
            job.stream.put(ImageReady(index, index, EncodedImage(b"", "image/png", 64, 64)))
