"""What is read from the engine's status when Prometheus asks: the same numbers that WatchStatus reports."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from sdgrpc.domain import EngineStatus
from sdgrpc.metrics.names import MOST_NAMES

NOTHING = EngineStatus(
    ready=False,
    running=0,
    queued=0,
    rows_per_call=0.0,
    steps_per_second=0.0,
    lora_sets=0,
    lora_set_bytes=0,
    fuse_count=0,
    jobs_finished=0,
)
"""Before there is an engine."""

Read = Callable[[EngineStatus], float]

GAUGES: tuple[tuple[str, str, Read], ...] = (
    ("ready", "1 where jobs are welcome.", lambda now: now.ready),
    ("jobs_running", "Jobs that have begun and not ended.", lambda now: now.running),
    ("jobs_waiting", "Jobs that wait for their turn.", lambda now: now.queued),
    ("queue_size", "Jobs that may wait.", lambda now: now.queue_size),
    ("lora_sets_resident", "Fused LoRA sets in memory.", lambda now: now.lora_sets),
    ("lora_sets_bytes", "What fused LoRA sets take.", lambda now: now.lora_set_bytes),
    (
        "engine_heartbeat_seconds",
        "How long ago a working thread of the engine last gave a sign of life; 0 while none works.",
        lambda now: now.heartbeat_seconds,
    ),
)
COUNTERS: tuple[tuple[str, str, Read], ...] = (
    ("jobs_finished_total", "Jobs that were drawn to their end.", lambda now: now.jobs_finished),
    ("lora_sets_hits_total", "Uses of a LoRA set that was fused already.", lambda now: now.lora_set_hits),
    ("lora_sets_misses_total", "Uses of a LoRA set that had to be fused.", lambda now: now.lora_set_misses),
    ("lora_sets_evictions_total", "LoRA sets that made room.", lambda now: now.lora_set_evictions),
)
ADAPTERS = ("max_lora", "running_lora_adapters", "waiting_lora_adapters")


class StatusCollector(Collector):
    """Reads `status`, which any thread may ask, once for each scrape."""

    def __init__(self, status: Callable[[], EngineStatus], clock: Callable[[], float] = time.time) -> None:
        self._status, self._clock = status, clock

    def describe(self) -> Iterable[Metric]:
        """Say the names without asking anybody."""
        return self._metrics(NOTHING)

    def collect(self) -> Iterable[Metric]:
        """See `Collector`."""
        return self._metrics(self._status())

    def _metrics(self, now: EngineStatus) -> Iterator[Metric]:
        for name, text, read in GAUGES:
            yield GaugeMetricFamily(f"sdgrpc_{name}", text, float(read(now)))
        for name, text, read in COUNTERS:
            yield CounterMetricFamily(f"sdgrpc_{name}", text, float(read(now)))
        yield self._adapters(now)

    def _adapters(self, now: EngineStatus) -> Metric:
        """The contract of Kubernetes' inference gateways: one series, whose value is when it was true."""
        text = "Which LoRA sets are in memory, which are waited for, and how many fit; when, as a Unix time."
        family = GaugeMetricFamily("sdgrpc_lora_requests_info", text, labels=ADAPTERS)
        held = list(dict.fromkeys(one.set_id for one in now.resident_sets))
        labels = [str(now.max_sets), _joined(held), _joined(now.wanted_sets)]
        family.add_metric(labels, self._clock())
        return family


def _joined(names: Iterable[str]) -> str:
    """Up to a thousand names, the latest ones."""
    return ",".join(list(names)[-MOST_NAMES:])
