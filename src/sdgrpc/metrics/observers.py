"""Counts what calls and jobs do as they do it."""

from __future__ import annotations

from collections.abc import Sequence

from sdgrpc.api.calls.call import Call
from sdgrpc.domain import LoraRef, Task
from sdgrpc.engine.observing.observer import JobObserver, Observer, SharedCall, Stage
from sdgrpc.metrics.definitions import Definitions
from sdgrpc.metrics.names import BoundedNames

INLINE = "inline"
"""What a LoRA file that came in its request is called: a client may name it as it likes."""


class CallMetrics:
    """Counts calls. Implements `api.calls.call.CallObserver`."""

    def __init__(self, definitions: Definitions) -> None:
        self._definitions = definitions

    def begin(self, call: Call) -> None:
        """See `CallObserver.begin`."""

    def end(self, call: Call) -> None:
        """See `CallObserver.end`."""
        definitions = self._definitions
        definitions.requests.labels(call.method, call.code, call.reason).inc()
        definitions.request_seconds.labels(call.method).observe(call.seconds)
        definitions.upload_bytes.inc(call.upload_bytes)
        if call.task is not None:
            definitions.stage_seconds.labels(Stage.SENT).observe(call.sent_seconds)


class JobMetrics(JobObserver):
    """Counts what one job does; `model` is its label."""

    def __init__(self, definitions: Definitions, model: str) -> None:
        self._definitions, self._model = definitions, model

    def took(self, stage: Stage, seconds: float) -> None:
        """See `JobObserver.took`."""
        self._definitions.stage_seconds.labels(stage).observe(max(seconds, 0.0))

    def read_ahead(self, files: int) -> None:
        """See `JobObserver.read_ahead`."""
        self._definitions.prefetched_files.labels(self._model).inc(files)

    def stepped(self, step: int) -> None:
        """See `JobObserver.stepped`."""
        del step
        self._definitions.steps.labels(self._model).inc()

    def drew(self, width: int, height: int) -> None:
        """See `JobObserver.drew`."""
        self._definitions.images.labels(self._model).inc()
        self._definitions.pixels.labels(self._model).inc(width * height)

    def out_of_memory(self) -> None:
        """See `JobObserver.out_of_memory`."""
        self._definitions.out_of_memory.labels(self._model).inc()

    def ended(self, error: BaseException | None, previews_dropped: int) -> None:
        """See `JobObserver.ended`."""
        del error
        self._definitions.previews_dropped.labels(self._model).inc(previews_dropped)


class EngineMetrics(Observer):
    """Counts jobs and the UNet calls that they share."""

    def __init__(self, definitions: Definitions, names: BoundedNames) -> None:
        self._definitions, self._names = definitions, names

    def begin(self, task: Task) -> JobObserver:
        """See `Observer.begin`; the engine has found the model and the files that the task names."""
        for name in {_name(ref) for ref in task.loras}:
            self._definitions.lora_jobs.labels(self._names.of(name)).inc()
        return JobMetrics(self._definitions, task.model)

    def called(self, call: SharedCall, jobs: Sequence[JobObserver]) -> None:
        """See `Observer.called`."""
        del jobs
        self._definitions.step_seconds.labels(call.model).observe(call.seconds)
        self._definitions.rows_per_call.labels(call.model).observe(call.rows)


def _name(ref: LoraRef) -> str:
    return INLINE if ref.content else ref.name or ref.sha256
