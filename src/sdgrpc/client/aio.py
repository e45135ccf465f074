"""The client for asyncio: the same calls, awaited."""

from __future__ import annotations

import asyncio
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import grpc
import grpc.aio

from sdgrpc.client.address import Address
from sdgrpc.client.catalog_aio import AsyncCatalogCalls
from sdgrpc.client.channel import (
    HEALTH_REQUEST,
    SERVING,
    ChannelOptions,
    Tls,
    channel_options,
    health_watch,
    not_ready,
)
from sdgrpc.client.cluster.calls import AsyncClusterCalls
from sdgrpc.client.drawing.calls import DrawingCalls
from sdgrpc.client.drawing.upscaling import OnTile, UpscaleCollector, UpscaledImage, upscale_request
from sdgrpc.client.errors import (
    DeadlineExceededError,
    UnavailableError,
    server_error,
)
from sdgrpc.client.headers import check_token, with_headers
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
    from sdgrpc.v1.catalog_pb2_grpc import CatalogServiceAsyncStub
    from sdgrpc.v1.cluster_pb2_grpc import ClusterServiceAsyncStub
    from sdgrpc.v1.diffusion_pb2_grpc import DiffusionServiceAsyncStub
    from sdgrpc.v1.jobs_pb2_grpc import JobServiceAsyncStub
from sdgrpc.client.jobs.job_aio import AsyncJob


class AsyncClient(AsyncCatalogCalls, AsyncClusterCalls, DrawingCalls[AsyncJob]):
    """Draws on a server from one event loop; close it, or use it in an `async with` block.

    `target`, `tls`, `token`, `options` and `resume_seconds` are as of `Client`.

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
        check_token(token)
        self.target = address.target
        self._token = token
        self._tls = tls or (Tls() if address.tls else None)
        self._options = channel_options(self._tls, options)
        self._resume_seconds = resume_seconds

    @cached_property
    def _channel(self) -> grpc.aio.Channel:
        """A channel belongs to the loop it is made in, so it is made at the first call."""
        return with_headers(self._connection, self._token)

    @cached_property
    def _connection(self) -> grpc.aio.Channel:
        """The channel itself, whose calls bear no token."""
        if self._tls is None:
            return grpc.aio.insecure_channel(self.target, self._options)
        return grpc.aio.secure_channel(self.target, self._tls.credentials(), self._options)

    @cached_property
    def _stub(self) -> DiffusionServiceAsyncStub:
        return DiffusionServiceStub(self._channel)

    @cached_property
    def _catalog(self) -> CatalogServiceAsyncStub:
        return CatalogServiceStub(self._channel)

    @cached_property
    def _cluster(self) -> ClusterServiceAsyncStub:
        return ClusterServiceStub(self._channel)

    @cached_property
    def _jobs(self) -> JobServiceAsyncStub:
        return JobServiceStub(self._channel)

    def _send(self, request: Drawn, options: Options) -> AsyncJob:
        call: Any = getattr(self._stub, type(request).__name__.removesuffix("Request"))
        resumption = Resumption(request, self._resume_seconds, options.get("timeout"))
        return AsyncJob(resumption, lambda request, timeout: call(request, timeout=timeout), self._jobs)

    async def upscale(
        self,
        image: ImageLike,
        *,
        upscaler: str = "",
        width: int = 0,
        height: int = 0,
        media_type: str = "",
        quality: int = 0,
        on_tile: OnTile | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - a gRPC deadline
    ) -> UpscaledImage:
        """Enlarge a picture by one of the server's upscalers; see `Client.upscale`."""
        request = upscale_request(image, upscaler, width, height, media_type, quality)
        collector, call = UpscaleCollector(on_tile), self._stub.Upscale(request, timeout=timeout)
        try:
            async for message in call:
                collector.take(message)
        except grpc.aio.AioRpcError as error:
            raise server_error(error) from error
        finally:
            call.cancel()
        return collector.result()

    def attach(
        self,
        request_id: str,
        *,
        after_sequence: int | None = None,
        timeout: float | None = None,
    ) -> AsyncJob:
        """Find a job again that was sent with `on_disconnect="keep"`; see `Client.attach`."""
        resumption = Resumption(attach_request(request_id, after_sequence), self._resume_seconds, timeout)
        call = self._jobs.AttachJob
        return AsyncJob(resumption, lambda request, timeout: call(request, timeout=timeout), self._jobs)

    async def list_jobs(self, *, page_size: int = 0) -> tuple[KeptJob, ...]:
        """Return this caller's jobs that are kept, the oldest first; asked for in pages of `page_size`."""
        request, jobs = jobs_pb2.ListJobsRequest(page_size=page_size), list[KeptJob]()
        try:
            while True:
                page = await self._jobs.ListJobs(request)
                jobs += kept_jobs(page.jobs)
                if not page.next_page_token:
                    return tuple(jobs)
                request.page_token = page.next_page_token
        except grpc.aio.AioRpcError as error:
            raise server_error(error) from error

    async def cancel_job(self, request_id: str) -> KeptJob:
        """Cancel a job that is kept, and return what it was before; one that has ended stays as it is."""
        request = jobs_pb2.CancelJobRequest(request_id=request_id)
        try:
            return kept_job((await self._jobs.CancelJob(request)).job)
        except grpc.aio.AioRpcError as error:
            raise server_error(error) from error

    async def wait_until_ready(self, timeout: float = 60.0) -> None:  # noqa: ASYNC109 - a gRPC deadline
        """Return as soon as the health service says that it serves; see `Client.wait_until_ready`."""
        watch = health_watch(self._channel)
        answered = False
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while (left := deadline - loop.time()) > 0:
            call = watch(HEALTH_REQUEST, timeout=left, wait_for_ready=True)
            try:
                async for answer in call:
                    if answer.status == SERVING:
                        return
                    answered = True
            except grpc.aio.AioRpcError as error:
                failure = server_error(error)
                if not isinstance(failure, (DeadlineExceededError, UnavailableError)):
                    raise failure from error
            finally:
                call.cancel()
        raise not_ready(self.target, timeout, answered=answered)

    async def close(self) -> None:
        """Close the connection; jobs that still run are cancelled. May be called twice."""
        if "_connection" in self.__dict__:
            await self._connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class _Sibling(AsyncClient):
    """A client on another's connection, which stays the other's."""

    def __init__(self, owner: AsyncClient, token: str) -> None:
        check_token(token)
        self.target = owner.target
        self._owner = owner
        self._resume_seconds = owner._resume_seconds
        self._token = token

    @cached_property
    def _connection(self) -> grpc.aio.Channel:
        return self._owner._connection

    async def close(self) -> None:
        """Leave the connection to its owner."""


def with_token(client: AsyncClient, token: str) -> AsyncClient:
    """Return a client on another's connection whose calls bear their own token; it ends with the other.

    For what stands between callers with tokens of their own and a server. Closing it does nothing.

    Raises:
        ValueError: the token has characters that a header cannot carry.

    """
    return _Sibling(client, token)
