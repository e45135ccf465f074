"""Every metric that is counted as things happen: its name, meaning, labels and buckets.

Base units, and only labels whose values are bounded by the server itself. What is read from the engine's
status instead stands in `status.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics

from sdgrpc.api.calls.call import CANCELLED, OK, UNKNOWN
from sdgrpc.api.calls.methods import OTHERS, OURS
from sdgrpc.engine.observing.observer import Stage
from sdgrpc.errors import SdgrpcError

STEP_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
REQUEST_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
STAGE_BUCKETS = (0.005, 0.025, *REQUEST_BUCKETS)
ROW_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)


class Definitions:
    """The counters and histograms of one server in `registry`, all there from the start, at zero."""

    def __init__(self, registry: CollectorRegistry, models: Iterable[str]) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, of which nothing here makes use

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"sdgrpc_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"sdgrpc_{name}", text, labels, registry=registry, buckets=buckets)

        self.requests = counter(
            "requests_total",
            "Calls that ended, by status and ErrorInfo's reason.",
            "method",
            "code",
            "reason",
        )
        self.request_seconds = histogram(
            "request_seconds", "What calls took from first to last.", REQUEST_BUCKETS, "method"
        )
        self.upload_bytes = counter("upload_bytes_total", "Bytes of LoRA files that clients sent.")
        self.stage_seconds = histogram(
            "stage_seconds", "What the jobs' time went to, each stage of each job.", STAGE_BUCKETS, "stage"
        )
        self.step_seconds = histogram(
            "step_seconds", "What UNet calls took, each of which advances its jobs.", STEP_BUCKETS, "model"
        )
        self.rows_per_call = histogram(
            "rows_per_call", "Rows of UNet calls; guidance takes two a picture.", ROW_BUCKETS, "model"
        )
        self.steps = counter("steps_total", "Steps of jobs that were done.", "model")
        self.images = counter("images_total", "Images that were drawn.", "model")
        self.pixels = counter("image_pixels_total", "Pixels of images that were drawn.", "model")
        self.previews_dropped = counter(
            "previews_dropped_total", "Previews that no reader came for in time, never rendered.", "model"
        )
        self.out_of_memory = counter(
            "out_of_memory_total", "Times that the device's memory did not suffice.", "model"
        )
        self.lora_jobs = counter(
            "lora_jobs_total", "Jobs that named a LoRA file; 1,000 names, then `other`.", "lora"
        )
        self.prefetched_files = counter(
            "prefetched_lora_files_total", "LoRA files of sets, read while their jobs waited.", "model"
        )
        self._set_to_zero(tuple(models))

    def _set_to_zero(self, models: tuple[str, ...]) -> None:
        """Make every series whose labels are known, so that a first failure is an increase."""
        for method, code, reason in outcomes():
            self.requests.labels(method, code, reason)
        for method in OURS:
            self.request_seconds.labels(method)
        for stage in Stage:
            self.stage_seconds.labels(stage)
        by_model = (
            *(self.steps, self.images, self.pixels),
            *(self.previews_dropped, self.out_of_memory, self.prefetched_files),
        )
        for model in models:
            for one in by_model:
                one.labels(model)
            self.step_seconds.labels(model)
            self.rows_per_call.labels(model)


def outcomes() -> Iterator[tuple[str, str, str]]:
    """Yield (method, code, reason) as calls may end: each method of ours with each failure there is."""
    failures = sorted({(kind.code, kind.reason) for kind in _kinds(SdgrpcError)})
    for method in OURS:
        yield from ((method, code, "") for code in (OK, CANCELLED, "DEADLINE_EXCEEDED"))
        yield from ((method, code, reason) for code, reason in failures)
    yield from ((method, OK, "") for method in OTHERS)
    yield UNKNOWN, "UNIMPLEMENTED", ""
    yield UNKNOWN, "UNAUTHENTICATED", "UNAUTHENTICATED"


def _kinds(kind: type[SdgrpcError]) -> Iterator[type[SdgrpcError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _kinds(below)
