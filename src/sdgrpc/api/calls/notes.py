"""What the engine knows of a job, noted on the call that asked for it."""

from __future__ import annotations

from sdgrpc.api.calls.call import Call, current
from sdgrpc.domain import Task
from sdgrpc.engine.observing.observer import JobObserver, Observer, Stage


class JobNotes(JobObserver):
    """Writes one job's wait for its turn to its call."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def took(self, stage: Stage, seconds: float) -> None:
        """See `JobObserver.took`."""
        if stage is Stage.QUEUED:
            self._call.queue_seconds = seconds


class CallNotes(Observer):
    """Follows every job for its call."""

    def begin(self, task: Task) -> JobObserver:
        """See `Observer.begin`."""
        del task
        return JobNotes(current())
