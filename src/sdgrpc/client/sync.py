"""The client for ordinary code."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Self

import grpc

from sdgrpc.client.address import Address
from sdgrpc.client.catalog_sync import CatalogCalls
from sdgrpc.client.channel import (
    HEALTH_REQUEST,
    SERVING,
    ChannelOptions,
    Tls,
    channel_options,
    health_watch,
    not_ready,
)
from sdgrpc.client.cluster.calls import ClusterCalls
from sdgrpc.client.drawing.calls import DrawingCalls
from sdgrpc.client.drawing.upscaling import OnTile, UpscaleCollector, UpscaledImage, upscale_request
from sdgrpc.client.errors import (
    DeadlineExceededError,
    UnavailableError,
    server_error,
)
from sdgrpc.client.headers import with_headers
from sdgrpc.client.jobs.job_sync import Job
from sdgrpc.client.jobs.records import KeptJob, attach_request, kept_job, kept_jobs
from sdgrpc.client.jobs.resuming import DEFAULT_SECONDS, Resumption
from sdgrpc.client.requests import Drawn, Options
from sdgrpc.v1 import jobs_pb2
from sdgrpc.v1.catalog_pb2_grpc import CatalogServiceStub
from sdgrpc.v1.cluster_pb2_grpc import ClusterServiceStub
from sdgrpc.v1.diffusion_pb2_grpc import DiffusionServiceStub
from sdgrpc.v1.jobs_pb2_grpc import JobServiceStub

if TYPE_CHECKING:
    from sdgrpc.client.pictures import ImageLike


class Client(CatalogCalls, ClusterCalls, DrawingCalls[Job]):
    """Draws on a server and asks what it has; close it, or use it in a `with` block. Threads may share it.

    `target` is a host, `host:port`, `http://…`, `https://…` or `unix:/path`; without `tls` the connection is
    plain text, unless the target begins with `https://`; `token` goes with every call where the server asks
    for one; `options` are further gRPC channel options.

    A call that its server's end, its drain or a broken connection cuts once the job was accepted is resumed:
    the same request is sent again, with the seed that was told, and what was seen is left out; so for up to
    `resume_seconds` until a server takes it, 0 for never. With a server that shares no UNet calls
    (`--no-batching`) the pictures are the same to the byte.

    Raises:
        ValueError: the target or the token has no such form.

    """

    def __init__(
        self,
        target: str = "localhost:50051",
        *,
        tls: Tls | None = None,
        token: str | None = None,
        options: ChannelOptions = (),
        resume_seconds: float = DEFAULT_SECONDS,
    ) -> None:
        address = Address.parse(target)
        self.target = address.target
        tls = tls or (Tls() if address.tls else None)
        arguments = channel_options(tls, options)
        channel = (
            grpc.insecure_channel(address.target, arguments)
            if tls is None
            else grpc.secure_channel(address.target, tls.credentials(), arguments)
        )
        self._channel = with_headers(channel, token)
        self._stub = DiffusionServiceStub(self._channel)
        self._catalog = CatalogServiceStub(self._channel)
        self._jobs = JobServiceStub(self._channel)
        self._cluster = ClusterServiceStub(self._channel)
        self._resume_seconds = resume_seconds

    def _send(self, request: Drawn, options: Options) -> Job:
        call: Any = getattr(self._stub, type(request).__name__.removesuffix("Request"))
        resumption = Resumption(request, self._resume_seconds, options.get("timeout"))
        return Job(resumption, lambda request, timeout: call(request, timeout=timeout), self._jobs)

    def upscale(
        self,
        image: ImageLike,
        *,
        upscaler: str = "",
        width: int = 0,
        height: int = 0,
        media_type: str = "",
        quality: int = 0,
        on_tile: OnTile | None = None,
        timeout: float | None = None,
    ) -> UpscaledImage:
        """Enlarge a picture by one of the server's upscalers, by its first if none is named.

        `width` and `height` are the result's pixels; where one is 0 it keeps the proportions, with both it is
        as large as the upscaler makes it. `on_tile` is told of each part that is done, and what it raises
        ends the call.
        """
        request = upscale_request(image, upscaler, width, height, media_type, quality)
        collector, call = UpscaleCollector(on_tile), self._stub.Upscale(request, timeout=timeout)
        try:
            for message in call:
                collector.take(message)
        except grpc.RpcError as error:
            raise server_error(error) from error
        finally:
            call.cancel()
        return collector.result()

    def attach(
        self, request_id: str, *, after_sequence: int | None = None, timeout: float | None = None
    ) -> Job:
        """Find a job again that was sent with `on_disconnect="keep"`; its events come from the first on.

        With `after_sequence` they come after that one, and `result` has only what comes. `timeout` is this
        call's, in seconds.

        Raises, as it is read:
            JobNotFoundError: the server has no such job, or has forgotten it.

        """
        resumption = Resumption(attach_request(request_id, after_sequence), self._resume_seconds, timeout)
        call = self._jobs.AttachJob
        return Job(resumption, lambda request, timeout: call(request, timeout=timeout), self._jobs)

    def list_jobs(self, *, page_size: int = 0) -> tuple[KeptJob, ...]:
        """Return this caller's jobs that are kept, the oldest first; asked for in pages of `page_size`."""
        request, jobs = jobs_pb2.ListJobsRequest(page_size=page_size), list[KeptJob]()
        try:
            while True:
                page = self._jobs.ListJobs(request)
                jobs += kept_jobs(page.jobs)
                if not page.next_page_token:
                    return tuple(jobs)
                request.page_token = page.next_page_token
        except grpc.RpcError as error:
            raise server_error(error) from error

    def cancel_job(self, request_id: str) -> KeptJob:
        """Cancel a job that is kept, and return what it was before; one that has ended stays as it is."""
        try:
            return kept_job(self._jobs.CancelJob(jobs_pb2.CancelJobRequest(request_id=request_id)).job)
        except grpc.RpcError as error:
            raise server_error(error) from error

    def wait_until_ready(self, timeout: float = 60.0) -> None:
        """Return as soon as the server's health service says that it serves.

        Raises:
            UnavailableError: `timeout` seconds have passed.
            SdgrpcServerError: the server has no health service, or refuses to answer.

        """
        watch = health_watch(self._channel)
        answered = False
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            call = watch(HEALTH_REQUEST, timeout=left, wait_for_ready=True)
            try:
                for answer in call:
                    if answer.status == SERVING:
                        return
                    answered = True
            except grpc.RpcError as error:
                failure = server_error(error)
                if not isinstance(failure, (DeadlineExceededError, UnavailableError)):
                    raise failure from error
            finally:
                call.cancel()
        raise not_ready(self.target, timeout, answered=answered)

    def close(self) -> None:
        """Close the connection; jobs that still run are cancelled. May be called twice."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
