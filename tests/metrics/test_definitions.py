"""What there is to read, before anything happened."""

from __future__ import annotations

from prometheus_client import generate_latest

from sdgrpc.api.calls.call import Call
from sdgrpc.domain import LoraRef
from sdgrpc.metrics.metrics import Metrics
from sdgrpc.metrics.names import BoundedNames
from tests.metrics.conftest import Scrape, scrape
from tests.support.jobs import make_task

NAMES = (
    *("jobs_running", "jobs_waiting", "requests_total", "request_seconds_count", "stage_seconds_count"),
    *("step_seconds_count", "steps_total", "images_total", "image_pixels_total", "rows_per_call_count"),
    *("lora_sets_resident", "lora_sets_bytes", "lora_sets_hits_total", "lora_sets_misses_total"),
    *("lora_sets_evictions_total", "previews_dropped_total", "out_of_memory_total", "upload_bytes_total"),
    *("engine_heartbeat_seconds", "prefetched_lora_files_total"),
)


def test_everything_is_zero_from_the_start() -> None:
    """Every name has a series, so that the first failure is an increase; only the time of one is not zero."""
    seen = Scrape(generate_latest(Metrics(["a", "b"]).registry).decode())
    found = {name for name, _ in seen.samples}
    assert not {f"sdgrpc_{name}" for name in NAMES} - found
    info = "sdgrpc_lora_requests_info"
    assert {value for (name, _), value in seen.samples.items() if name != info} == {0.0}
    assert seen.value("steps_total", model="b") == 0
    generate = {"method": "sdgrpc.v1.DiffusionService/Generate"}
    assert seen.value("requests_total", **generate, code="OK", reason="") == 0
    assert seen.value("requests_total", **generate, code="RESOURCE_EXHAUSTED", reason="QUEUE_FULL") == 0


def test_buckets_reach_from_the_shortest_to_the_longest() -> None:
    """Steps of 5 ms to a minute, requests of a tenth of a second to an hour."""
    seen = Scrape(generate_latest(Metrics(["a"]).registry).decode())
    for name, least, most in (("step_seconds", 0.005, 60), ("request_seconds", 0.1, 3600)):
        bounds = {float(labels["le"]) for labels in seen.labels(f"{name}_bucket")}
        assert min(bounds) == least
        assert sorted(bounds)[-2:] == [most, float("inf")]


def test_names_from_outside_are_bounded() -> None:
    """A thousand, then `other`; those that were there before stay themselves."""
    names = BoundedNames()
    assert [names.of(f"n{index}") for index in range(1000)] == [f"n{index}" for index in range(1000)]
    assert {names.of(f"m{index}") for index in range(500)} == {"other"}
    assert names.of("n3") == "n3"


def test_series_do_not_grow_with_what_clients_send() -> None:
    """Two thousand LoRA names make 1,001 series; one that comes with its request is `inline`."""
    metrics = Metrics(["m"])
    for index in range(2000):
        metrics.jobs.begin(make_task(loras=(LoraRef(name=f"l{index}"),)))
    metrics.jobs.begin(make_task(loras=(LoraRef(name="mine", content=b"x"),)))
    seen = Scrape(generate_latest(metrics.registry).decode())
    assert len(seen.labels("lora_jobs_total")) == 1001
    assert seen.value("lora_jobs_total", lora="other") == 1001


def test_files_read_ahead_are_counted() -> None:
    """By model, the files of every job."""
    metrics = Metrics(["m"])
    for files in (2, 1):
        metrics.jobs.begin(make_task()).read_ahead(files)
    assert (
        Scrape(generate_latest(metrics.registry).decode()).value("prefetched_lora_files_total", model="m")
        == 3
    )


def test_a_metrics_port_answers(capfd) -> None:
    """By HTTP, on a free port, without a word on standard error."""
    metrics = Metrics(["m"])
    metrics.calls.end(Call("unknown", code="UNIMPLEMENTED"))
    with metrics.served("127.0.0.1:0") as address:
        seen = scrape(address)
        assert seen.value("requests_total", method="unknown", code="UNIMPLEMENTED", reason="") == 1
        assert scrape(address.replace("127.0.0.1", "localhost")).samples
    assert capfd.readouterr().err == ""
