"""SIGTERM: how a server leaves, step by step, and that nothing keeps it."""

from __future__ import annotations

import signal

import grpc

from sdgrpc.v1 import diffusion_pb2 as pb
from tests.faults.conftest import NOT_SERVING, SERVING, failure, reason_of
from tests.support.api import details_of, generate

FOR_EVER = ("--drain-timeout", "600", "--hang-timeout", "600")


def test_a_second_signal_ends_a_server_whose_threads_hang(open_faulty) -> None:
    """Neither the time for draining nor the watch over calls is waited for."""
    with open_faulty(*FOR_EVER) as server:
        server.order("predict", "hang")
        job = server.stub.Generate(generate())
        assert next(job).HasField("accepted")
        server.until_hanging()
        states = server.health()
        assert next(states) == SERVING
        server.signal(signal.SIGTERM)
        assert next(states) == NOT_SERVING
        server.signal(signal.SIGTERM)
        assert server.wait(30) == 0
        assert "as a second signal asked for" in server.log_text()
        assert failure(job).code() is grpc.StatusCode.UNAVAILABLE


def test_the_time_for_draining_ends_a_server_whose_threads_hang(open_faulty) -> None:
    """Five seconds after it, with the status of a fault and a line that says where they hang."""
    with open_faulty("--drain-timeout", "0", "--hang-timeout", "600") as server:
        server.order("decode", "hang")
        job = server.stub.Generate(generate())
        assert next(job).HasField("accepted")
        server.until_hanging()
        server.signal(signal.SIGTERM)
        assert reason_of(failure(job)) == "DRAINING"
        assert server.wait(60) == 70
        (line,) = [line for line in server.log_text().splitlines() if "ending now" in line]
        assert "threads outlasted the time for draining" in line
        assert "_hang" in line


def test_calls_are_taken_for_a_while_and_then_refused(open_faulty) -> None:
    """NOT_SERVING; then `drain_delay`, in which jobs are drawn; then RetryInfo; then the end."""
    with open_faulty("--drain-delay", "3", "--drain-timeout", "600") as server:
        job = server.stub.Generate(generate(sampling=pb.Sampling(steps=150)))
        assert next(job).HasField("accepted")
        states = server.health()
        assert next(states) == SERVING
        server.signal(signal.SIGTERM)
        assert next(states) == NOT_SERVING
        assert list(server.stub.Generate(generate(sampling=pb.Sampling(steps=1))))[-1].HasField("finished")
        while True:
            try:
                list(server.stub.Generate(generate(sampling=pb.Sampling(steps=1))))
            except grpc.RpcError as error:
                refusal = error
                break
        details = details_of(refusal)
        assert (refusal.code(), details["ErrorInfo"].reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        assert details["RetryInfo"].retry_delay.seconds > 0
        assert list(job)[-1].HasField("finished")
        assert server.wait() == 0


def test_jobs_that_outlast_the_time_for_draining_are_cancelled_at_a_step(open_faulty) -> None:
    """They are told, and the end is a clean one."""
    with open_faulty("--drain-timeout", "0.5") as server:
        server.order("predict", "slow")
        job = server.stub.Generate(generate(sampling=pb.Sampling(steps=150)))
        assert next(job).HasField("accepted")
        server.signal(signal.SIGTERM)
        assert reason_of(failure(job)) == "DRAINING"
        assert server.wait() == 0


def test_an_idle_server_just_ends(open_faulty) -> None:
    """Nothing is waited for, neither of draining nor by the process's own end."""
    with open_faulty(*FOR_EVER) as server:
        server.images(generate())
        server.signal(signal.SIGTERM)
        assert server.wait(60) == 0
        assert "ending now" not in server.log_text()
