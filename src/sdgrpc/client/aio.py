"""The client for asyncio: the same calls, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self, Unpack

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
from sdgrpc.client.errors import DeadlineExceededError, JobCancelledError, UnavailableError, server_error
from sdgrpc.client.events import Collector, Event, Result
from sdgrpc.client.pictures import DrawnImage
from sdgrpc.client.requests import (
    Options,
    generate_request,
    inpaint_request,
    mask_message,
    transform_request,
)
from sdgrpc.client.token import bearing, check_token
from sdgrpc.v1 import diffusion_pb2 as pb
from sdgrpc.v1.catalog_pb2_grpc import CatalogServiceStub
from sdgrpc.v1.diffusion_pb2_grpc import DiffusionServiceStub

if TYPE_CHECKING:
    from sdgrpc.client.pictures import ImageLike
    from sdgrpc.domain import ResizeMode
    from sdgrpc.v1.catalog_pb2_grpc import CatalogServiceAsyncStub
    from sdgrpc.v1.diffusion_pb2_grpc import DiffusionServiceAsyncStub


class AsyncJob:
    """A running call: iterate its events, or wait for its images. Leaving its `async with` block cancels it.

    Iterating and waiting raise SdgrpcServerError, or one of its subclasses, if the call fails.
    """

    def __init__(self, call: grpc.aio.UnaryStreamCall[Any, pb.JobEvent]) -> None:
        self._call = call
        self._collector = Collector()

    async def __aiter__(self) -> AsyncIterator[Event]:
        try:
            async for message in self._call:
                event = self._collector.take(message)
                if event is not None:
                    yield event
        except grpc.aio.AioRpcError as error:
            raise server_error(error) from error
        except asyncio.CancelledError:
            # grpc says the same for "your task was cancelled", which must travel on, and for `cancel()`.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise JobCancelledError("CANCELLED", "cancelled by this client") from None

    async def result(self) -> Result:
        """Wait for the end of the call; events that were iterated before count."""
        async for _ in self:
            continue
        return self._collector.result()

    async def images(self) -> tuple[DrawnImage, ...]:
        """Wait for the end of the call and return its images in order."""
        return (await self.result()).images

    def cancel(self) -> None:
        """Cancel the call; the server drops the job before its next step. Does nothing after its end."""
        self._call.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cancel()


class AsyncClient(AsyncCatalogCalls):
    """Draws on a server from one event loop; close it, or use it in an `async with` block.

    `target`, `tls`, `token` and `options` are as of `Client`.

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
    ) -> None:
        address = Address.parse(target)
        check_token(token)
        self.target = address.target
        self._token = token
        self._tls = tls or (Tls() if address.tls else None)
        self._options = channel_options(self._tls, options)

    @cached_property
    def _channel(self) -> grpc.aio.Channel:
        """A channel belongs to the loop it is made in, so it is made at the first call."""
        channel = (
            grpc.aio.insecure_channel(self.target, self._options)
            if self._tls is None
            else grpc.aio.secure_channel(self.target, self._tls.credentials(), self._options)
        )
        return bearing(channel, self._token)

    @cached_property
    def _stub(self) -> DiffusionServiceAsyncStub:
        return DiffusionServiceStub(self._channel)

    @cached_property
    def _catalog(self) -> CatalogServiceAsyncStub:
        return CatalogServiceStub(self._channel)

    def generate(self, prompt: str, **options: Unpack[Options]) -> AsyncJob:
        """Draw images from a prompt."""
        request = generate_request(prompt, options)
        return AsyncJob(self._stub.Generate(request, timeout=options.get("timeout")))

    def transform(
        self,
        prompt: str,
        image: ImageLike,
        *,
        strength: float | None = None,
        resize_mode: ResizeMode | str | None = None,
        **options: Unpack[Options],
    ) -> AsyncJob:
        """Redraw `image` under a prompt; `strength` is how far from it, in [0, 1].

        With `width` or `height` alone it keeps its proportions; `resize_mode` ("stretch", "crop", "pad") says
        how it is brought to a size of other proportions.
        """
        request = transform_request(prompt, image, strength, resize_mode, options)
        return AsyncJob(self._stub.Transform(request, timeout=options.get("timeout")))

    def inpaint(
        self,
        prompt: str,
        image: ImageLike,
        mask: ImageLike,
        *,
        strength: float | None = None,
        mask_blur: float = 0.0,
        crop_padding: int | None = None,
        resize_mode: ResizeMode | str | None = None,
        **options: Unpack[Options],
    ) -> AsyncJob:
        """Redraw the part of `image` where `mask` is white; see `Client.inpaint`."""
        use = mask_message(mask_blur, crop_padding)
        request = inpaint_request(prompt, image, mask, strength, use, resize_mode, options)
        return AsyncJob(self._stub.Inpaint(request, timeout=options.get("timeout")))

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
        if "_channel" in self.__dict__:
            await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
