"""A running call of the client for ordinary code."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol, Self

import grpc

from sdgrpc.client.errors import (
    JobNotFoundError,
    SdgrpcServerError,
    incomplete,
    server_error,
)
from sdgrpc.client.events import Collector, Event, Result
from sdgrpc.client.jobs.records import kept_id
from sdgrpc.client.jobs.resuming import Resumption
from sdgrpc.client.pictures import DrawnImage
from sdgrpc.v1 import diffusion_pb2 as pb
from sdgrpc.v1 import jobs_pb2
from sdgrpc.v1.jobs_pb2_grpc import JobServiceStub

CANCEL_SECONDS = 10.0
"""How long the server may take to cancel a job that it keeps."""


class _Call(Protocol):
    """What a Job needs of grpc's call, whose own type is private."""

    def __iter__(self) -> Iterator[pb.JobEvent]: ...
    def cancel(self) -> object: ...


class Job:
    """A running call: iterate its events, or wait for its images. Leaving its `with` block closes the call.

    That cancels the job, unless it was sent with `on_disconnect="keep"`. A call that is cut after its job was
    accepted is resumed, see `Client`. Iterating and waiting raise SdgrpcServerError, or one of its
    subclasses, if the call fails.
    """

    def __init__(
        self,
        resumption: Resumption,
        call: Callable[[Any, float | None], _Call],
        jobs: JobServiceStub | None = None,
    ) -> None:
        self._resumption, self._make_call, self._jobs = resumption, call, jobs
        self._collector = Collector()
        self._closed = threading.Event()
        self._call = self._next_call()

    def _next_call(self) -> _Call:
        return self._make_call(self._resumption.request, self._resumption.time_left())

    def __iter__(self) -> Iterator[Event]:
        for message in self._messages():
            event = self._collector.take(message)
            if event is not None:
                yield event

    def _messages(self) -> Iterator[pb.JobEvent]:
        """The messages that were not seen before, of as many calls as it takes."""
        while True:
            cause: grpc.RpcError | None = None
            failure: SdgrpcServerError = incomplete()
            try:
                yield from filter(self._resumption.is_new, self._call)
            except grpc.RpcError as error:
                failure, cause = server_error(error), error
            if cause is None and self._resumption.finished:
                return
            wait = self._resumption.wait_after(failure)
            if wait is None or self._closed.wait(wait):
                if cause is None:
                    return  # of which `result` tells
                raise self._resumption.failure_after(failure) from cause
            self._call = self._next_call()

    def result(self) -> Result:
        """Wait for the end of the call; events that were iterated before count."""
        for _ in self:
            continue
        return self._collector.result()

    def images(self) -> tuple[DrawnImage, ...]:
        """Wait for the end of the call and return its images in order."""
        return self.result().images

    def cancel(self) -> None:
        """Cancel the job: the server drops it before its next step. Does nothing after its end."""
        self.close()
        request_id = kept_id(self._resumption.request)
        if request_id and self._jobs is not None and not self._resumption.finished:
            try:
                self._jobs.CancelJob(jobs_pb2.CancelJobRequest(request_id=request_id), timeout=CANCEL_SECONDS)
            except grpc.RpcError as error:
                failure = server_error(error)
                if not isinstance(failure, JobNotFoundError):
                    raise failure from error

    def detach(self) -> str:
        """Leave a job that is kept, once it is accepted, and return the id by which `attach` finds it.

        Raises:
            ValueError: it is not kept, so that it cannot be left: send it with `on_disconnect="keep"`.
            SdgrpcServerError: it was refused.

        """
        request_id = kept_id(self._resumption.request)
        if not request_id:
            raise ValueError('a job that is to be left is sent with on_disconnect="keep"')
        if not self._resumption.accepted:
            next(iter(self), None)
        self.close()
        return kept_id(self._resumption.request)

    def close(self) -> None:
        """Close the call: a job that is not kept is cancelled, one that is goes on."""
        self._closed.set()
        self._call.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
