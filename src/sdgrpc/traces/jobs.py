"""Spans below a call's: the stages of its job, and each UNet call that the job shared with others."""

from __future__ import annotations

import time
from collections.abc import Sequence

from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanContext, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.util.types import AttributeValue

from sdgrpc.api.calls.call import current
from sdgrpc.domain import Task
from sdgrpc.engine.observing.observer import UNOBSERVED, JobObserver, Observer, SharedCall, Stage
from sdgrpc.traces.calls import CallTraces

NAMES = {
    Stage.QUEUED: "queue",
    Stage.READ: "read",
    Stage.FUSED: "fuse",
    Stage.ENCODED: "encode",
    Stage.DENOISED: "denoise",
    Stage.DECODED: "decode",
}
"""The spans of stages; what sending took is an attribute of the call's."""

UNET_CALL = "unet"


class JobTraces(JobObserver):
    """Writes one job's stages below its call's span, which may have ended where the job outlives its call.

    The engine tells of a stage when it is over, in one thread after the other; spans are dated back.
    """

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer, self._span = tracer, span
        self.context = set_span_in_context(span, Context())
        self._read = 0.0
        self._denoising_since: int | None = None
        self._steps: list[tuple[int, int]] = []
        self._calls: list[SpanContext] = []

    @property
    def span_context(self) -> SpanContext:
        """What links to the call's span name."""
        return self._span.get_span_context()

    def took(self, stage: Stage, seconds: float) -> None:
        """See `JobObserver.took`. Reading is told of when fusing is over too, and was before it."""
        now = time.time_ns()
        began = now - round(max(seconds, 0.0) * 1e9)
        if stage is Stage.READ:
            self._read = seconds
        elif stage is Stage.DENOISED:
            self._denoised(began, now)
        elif stage in NAMES:
            if stage is Stage.FUSED and self._read:
                self._write(NAMES[Stage.READ], began - round(self._read * 1e9), began)
            self._write(NAMES[stage], began, now)
            self._denoising_since = now if stage is Stage.ENCODED else self._denoising_since

    def read_ahead(self, files: int) -> None:
        """See `JobObserver.read_ahead`."""
        self._event("files read ahead", {"sdgrpc.files": files})

    def stepped(self, step: int) -> None:
        """See `JobObserver.stepped`."""
        self._steps.append((step, time.time_ns()))

    def shared(self, call: SpanContext) -> None:
        """Take note of a UNet call that advanced the job."""
        self._calls.append(call)

    def drew(self, width: int, height: int) -> None:
        """See `JobObserver.drew`."""
        self._event("image", {"sdgrpc.width": width, "sdgrpc.height": height})

    def out_of_memory(self) -> None:
        """See `JobObserver.out_of_memory`."""
        self._event("out of memory", {})

    def ended(self, error: BaseException | None, previews_dropped: int) -> None:
        """See `JobObserver.ended`; steps that led to no picture are shown too."""
        if self._denoising_since is not None:
            self._denoised(self._denoising_since, time.time_ns(), cut=True, error=error)
        elif error is not None:
            self._event("failed", {"error.type": type(error).__name__})
        if previews_dropped:
            self._event("previews dropped", {"sdgrpc.previews": previews_dropped})

    def _denoised(self, began: int, ended: int, *, cut: bool = False, error: object = None) -> None:
        self._denoising_since = None
        links = [Link(call) for call in self._calls]
        span = self._tracer.start_span(
            NAMES[Stage.DENOISED], self.context, links=links, start_time=began, attributes={"sdgrpc.cut": cut}
        )
        for step, at in self._steps:
            span.add_event("step", {"sdgrpc.step": step}, at)
        if error is not None:
            span.set_attribute("error.type", type(error).__name__)
            span.set_status(Status(StatusCode.ERROR))
        span.end(ended)

    def _write(self, name: str, began: int, ended: int) -> None:
        self._tracer.start_span(name, self.context, start_time=began).end(ended)

    def _event(self, name: str, attributes: dict[str, AttributeValue]) -> None:
        if self._span.is_recording():
            self._span.add_event(name, attributes)


class EngineTraces(Observer):
    """Follows the jobs of calls that are recorded."""

    def __init__(self, tracer: Tracer, calls: CallTraces) -> None:
        self._tracer, self._calls = tracer, calls

    def begin(self, task: Task) -> JobObserver:
        """See `Observer.begin`."""
        del task
        span = self._calls.span_of(current())
        return UNOBSERVED if span is None else JobTraces(self._tracer, span)

    def called(self, call: SharedCall, jobs: Sequence[JobObserver]) -> None:
        """See `Observer.called`. The span is below the first job's, and links to those of the others."""
        followed = [job for job in jobs if isinstance(job, JobTraces)]
        if not followed:
            return
        first, *others = followed
        now = time.time_ns()
        attributes: dict[str, AttributeValue] = {
            "sdgrpc.model": call.model,
            "sdgrpc.rows": call.rows,
            "sdgrpc.jobs": call.jobs,
        }
        span = self._tracer.start_span(
            UNET_CALL,
            first.context,
            attributes=attributes,
            links=[Link(job.span_context) for job in others],
            start_time=now - round(call.seconds * 1e9),
        )
        span.end(now)
        for job in followed:
            job.shared(span.get_span_context())
