"""The client for ordinary code."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol, Self, Unpack

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
from sdgrpc.client.errors import DeadlineExceededError, UnavailableError, server_error
from sdgrpc.client.events import Collector, Event, Result
from sdgrpc.client.pictures import DrawnImage
from sdgrpc.client.requests import (
    Options,
    generate_request,
    inpaint_request,
    mask_message,
    transform_request,
)
from sdgrpc.client.token import bearing
from sdgrpc.v1 import diffusion_pb2 as pb
from sdgrpc.v1.catalog_pb2_grpc import CatalogServiceStub
from sdgrpc.v1.diffusion_pb2_grpc import DiffusionServiceStub

if TYPE_CHECKING:
    from sdgrpc.client.pictures import ImageLike
    from sdgrpc.domain import ResizeMode


class _Call(Protocol):
    """What a Job needs of grpc's call, whose own type is private."""

    def __iter__(self) -> Iterator[pb.JobEvent]: ...
    def cancel(self) -> object: ...


class Job:
    """A running call: iterate its events, or wait for its images. Leaving its `with` block cancels it.

    Iterating and waiting raise SdgrpcServerError, or one of its subclasses, if the call fails.
    """

    def __init__(self, call: _Call) -> None:
        self._call = call
        self._collector = Collector()

    def __iter__(self) -> Iterator[Event]:
        try:
            for message in self._call:
                event = self._collector.take(message)
                if event is not None:
                    yield event
        except grpc.RpcError as error:
            raise server_error(error) from error

    def result(self) -> Result:
        """Wait for the end of the call; events that were iterated before count."""
        for _ in self:
            continue
        return self._collector.result()

    def images(self) -> tuple[DrawnImage, ...]:
        """Wait for the end of the call and return its images in order."""
        return self.result().images

    def cancel(self) -> None:
        """Cancel the call; the server drops the job before its next step. Does nothing after its end."""
        self._call.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()


class Client(CatalogCalls):
    """Draws on a server and asks what it has; close it, or use it in a `with` block. Threads may share it.

    `target` is a host, `host:port`, `http://…`, `https://…` or `unix:/path`; without `tls` the connection is
    plain text, unless the target begins with `https://`; `token` goes with every call where the server asks
    for one; `options` are further gRPC channel options.

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
        self.target = address.target
        tls = tls or (Tls() if address.tls else None)
        arguments = channel_options(tls, options)
        channel = (
            grpc.insecure_channel(address.target, arguments)
            if tls is None
            else grpc.secure_channel(address.target, tls.credentials(), arguments)
        )
        self._channel = bearing(channel, token)
        self._stub = DiffusionServiceStub(self._channel)
        self._catalog = CatalogServiceStub(self._channel)

    def generate(self, prompt: str, **options: Unpack[Options]) -> Job:
        """Draw images from a prompt."""
        return Job(self._stub.Generate(generate_request(prompt, options), timeout=options.get("timeout")))

    def transform(
        self,
        prompt: str,
        image: ImageLike,
        *,
        strength: float | None = None,
        resize_mode: ResizeMode | str | None = None,
        **options: Unpack[Options],
    ) -> Job:
        """Redraw `image` under a prompt; `strength` is how far from it, in [0, 1].

        With `width` or `height` alone it keeps its proportions; `resize_mode` ("stretch", "crop", "pad") says
        how it is brought to a size of other proportions.
        """
        request = transform_request(prompt, image, strength, resize_mode, options)
        return Job(self._stub.Transform(request, timeout=options.get("timeout")))

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
    ) -> Job:
        """Redraw the part of `image` where `mask`, an image of the same size, is white.

        `mask_blur` is pixels of its edge; with `crop_padding` only a crop around the mask, with so many
        pixels of padding, is redrawn at full resolution. Then, and without `width` and `height`, the result
        has the size of `image`.
        """
        use = mask_message(mask_blur, crop_padding)
        request = inpaint_request(prompt, image, mask, strength, use, resize_mode, options)
        return Job(self._stub.Inpaint(request, timeout=options.get("timeout")))

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
