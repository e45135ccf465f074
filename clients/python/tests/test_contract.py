"""The table of tests/contract, through the stubs. Its README says what each word means."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from checks import check_embeddings, check_events, check_failure, check_plan, check_upscaled, details_of
from sdgrpc.v1 import catalog_pb2, catalog_pb2_grpc, cluster_pb2_grpc, jobs_pb2
from sdgrpc.v1 import diffusion_pb2 as pb
from sdgrpc.v1.diffusion_pb2_grpc import DiffusionServiceStub
from sdgrpc.v1.jobs_pb2_grpc import JobServiceStub
from server import Server
from table import Case, read_table, request_of

MOST_CALLS = 64
MOST_REFUSALS = 60


class Runner:
    """Runs cases against one server."""

    def __init__(self, channel: grpc.Channel, server: Server) -> None:
        self.stub = DiffusionServiceStub(channel)
        self.catalog = catalog_pb2_grpc.CatalogServiceStub(channel)
        self.jobs = JobServiceStub(channel)
        self.replicas = cluster_pb2_grpc.ClusterServiceStub(channel)
        self.server = server
        self.hashes: dict[str, list[str]] = {}

    def open(self, case: Case, timeout: float | None = None) -> grpc.Future:
        """Start the case's call."""
        return getattr(self.stub, case["method"])(request_of(case), timeout=timeout)

    def call(self, case: Case) -> None:
        events, error = read(self.open(case))
        if case["expect"]["outcome"] != "OK":
            check_failure(error, case["expect"])
            return
        assert error is None
        images = check_events(events, case["expect"])
        self.hashes[case["name"]] = [hashlib.sha256(image.image.data).hexdigest() for image in images]

    def upscale(self, case: Case) -> None:
        events, error = read(self.open(case))
        if case["expect"]["outcome"] != "OK":
            check_failure(error, case["expect"])
            return
        assert error is None
        image = check_upscaled(events, case["expect"])
        self.hashes[case["name"]] = [hashlib.sha256(image.data).hexdigest()]

    def embeddings(self, case: Case) -> None:
        try:
            answer = self.catalog.ListEmbeddings(request_of(case))
        except grpc.RpcError as error:
            check_failure(error, case["expect"])
            return
        check_embeddings(answer.embeddings, case["expect"]["embeddings"])

    def plan(self, case: Case) -> None:
        request = catalog_pb2.PlanJobRequest(**{case["method"].lower(): request_of(case)})
        try:
            answer = self.catalog.PlanJob(request)
        except grpc.RpcError as error:
            check_failure(error, case["expect"])
            return
        check_plan(answer, case["expect"])

    def cluster(self, case: Case) -> None:
        expect = case["expect"]
        if "with_replicas" in case and self.has_replicas():
            expect = case["with_replicas"]
        try:
            answer = getattr(self.replicas, case["method"])(request_of(case)).replicas
        except grpc.RpcError as error:
            check_failure(error, expect)
            return
        assert expect["outcome"] == "OK"
        assert (answer if case["method"] == "ScaleReplicas" else len(answer)) == expect["replicas"]

    def has_replicas(self) -> bool:
        """Whether several draw behind the server."""
        watch = self.catalog.WatchStatus(catalog_pb2.WatchStatusRequest())
        try:
            return bool(next(watch).replicas)
        finally:
            watch.cancel()

    def keep(self, case: Case) -> None:
        pictures, cut = None, 1
        while True:
            request = request_of(case)
            request.request_id += f" {cut}"
            call = getattr(self.stub, case["method"])(request)
            events = [next(call) for _ in range(cut)]
            call.cancel()
            events += self.attached(request.request_id, events[-1].sequence)
            images = check_events(events, {**case["expect"], "request_id": request.request_id})
            data = [image.image.data for image in images]
            assert pictures in (None, data)
            assert list(map(bare, self.attached(request.request_id))) == list(map(bare, events))
            if cut == len(events):
                return
            pictures, cut = data, cut + 1

    def attached(self, request_id: str, after: int | None = None) -> list[pb.JobEvent]:
        """The events of a job that is kept, after one."""
        request = jobs_pb2.AttachJobRequest(request_id=request_id, after_sequence=after)
        events, error = read(self.jobs.AttachJob(request))
        assert error is None
        return events

    def exists(self, case: Case) -> None:
        _, error = read(self.open(case))
        assert error is None
        request = request_of(case)
        request.prompt += " and another"
        _, error = read(getattr(self.stub, case["method"])(request))
        check_failure(error, case["expect"])

    def attach(self, case: Case) -> None:
        request = jobs_pb2.AttachJobRequest(request_id=request_of(case).request_id)
        _, error = read(self.jobs.AttachJob(request))
        check_failure(error, case["expect"])

    def unreachable(self, case: Case) -> None:
        with grpc.insecure_channel("127.0.0.1:1") as nobody:
            _, error = read(getattr(DiffusionServiceStub(nobody), case["method"])(request_of(case)))
        check_failure(error, case["expect"])

    def cancel(self, case: Case) -> None:
        before = self.until_idle()
        call = self.open(case)
        until_progress(call)
        call.cancel()
        _, error = read(call)
        check_failure(error, case["expect"])
        assert self.until_idle() == before

    def deadline(self, case: Case) -> None:
        before = self.until_idle()
        _, error = read(self.open(case, timeout=case["timeout_seconds"]))
        check_failure(error, case["expect"])
        assert self.until_idle() == before

    def fill(self, case: Case) -> None:
        opened, refusal = self.fill_queue(case)
        check_failure(refusal, case["expect"])
        for call in opened:
            call.cancel()
        for _ in range(MOST_REFUSALS):
            time.sleep(details_of(refusal)["RetryInfo"].retry_delay.ToTimedelta().total_seconds())
            call = self.open(case)
            refusal = first(call)
            call.cancel()
            if refusal is None:
                return
            check_failure(refusal, case["expect"])
        pytest.fail(f"refused {MOST_REFUSALS} times")

    def fill_queue(self, case: Case) -> tuple[list[grpc.Future], grpc.RpcError]:
        """Open calls until one fails; return the others and the failure."""
        opened = []
        for _ in range(MOST_CALLS):
            call = self.open(case)
            if (error := first(call)) is not None:
                return opened, error
            opened.append(call)
        pytest.fail(f"{MOST_CALLS} calls, and none was refused")

    def drain(self, case: Case) -> None:
        if self.server.process is None:
            pytest.skip("the server belongs to somebody else: SDGRPC_CONTRACT_SERVER is set")
        call = self.open(case)
        until_progress(call)
        self.server.stop()
        _, error = read(call)
        check_failure(error, case["expect"])

    def until_idle(self) -> int:
        """Wait until no job is there; return how many were finished so far."""
        request = catalog_pb2.WatchStatusRequest(min_interval=Duration(nanos=100_000_000))
        watch = self.catalog.WatchStatus(request)
        try:
            states = (state for state in watch if state.ready and state.running == state.queued == 0)
            return next(states).jobs_finished
        finally:
            watch.cancel()


KINDS: dict[str, Callable[[Runner, Case], None]] = {
    "call": Runner.call,
    "unreachable": Runner.unreachable,
    "cancel": Runner.cancel,
    "deadline": Runner.deadline,
    "fill": Runner.fill,
    "drain": Runner.drain,
    "keep": Runner.keep,
    "upscale": Runner.upscale,
    "embeddings": Runner.embeddings,
    "plan": Runner.plan,
    "cluster": Runner.cluster,
    "exists": Runner.exists,
    "attach": Runner.attach,
}


def bare(event: pb.JobEvent) -> pb.JobEvent:
    """The event without its previews."""
    copied = pb.JobEvent.FromString(event.SerializeToString())
    if copied.WhichOneof("event") == "progress":
        copied.progress.ClearField("previews")
    return copied


def read(call: grpc.Future) -> tuple[list[pb.JobEvent], grpc.RpcError | None]:
    """The events that were not read yet, and the error that ended them."""
    events = []
    try:
        events.extend(call)
    except grpc.RpcError as error:
        return events, error
    return events, None


def first(call: grpc.Future) -> grpc.RpcError | None:
    """None if the job was accepted."""
    try:
        assert next(call).WhichOneof("event") == "accepted"
    except grpc.RpcError as error:
        return error
    return None


def until_progress(call: grpc.Future) -> None:
    """Read up to the first progress."""
    while next(call).WhichOneof("event") != "progress":
        continue


@pytest.fixture(scope="module")
def runner(server: Server) -> Iterator[Runner]:
    """The runner; at its end it writes the hashes where SDGRPC_CONTRACT_HASHES asks for them."""
    with grpc.insecure_channel(server.target, [("grpc.max_receive_message_length", 128 << 20)]) as channel:
        runner = Runner(channel, server)
        yield runner
    if path := os.environ.get("SDGRPC_CONTRACT_HASHES"):
        Path(path).write_text(json.dumps(runner.hashes), "utf-8")


@pytest.mark.parametrize("case", read_table()["cases"], ids=lambda case: case["name"])
def test_case(runner: Runner, case: Case) -> None:
    """One line of the table; they run in its order, and the last one ends the server."""
    KINDS[case["kind"]](runner, case)
