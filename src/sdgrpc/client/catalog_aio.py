"""The catalog's calls for asyncio; `catalog_sync` says what each does."""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import grpc.aio

from sdgrpc.client import catalog_messages
from sdgrpc.client.drawing.plans import AsyncPlans
from sdgrpc.client.drawing.upscaling import upscaler
from sdgrpc.client.errors import server_error
from sdgrpc.client.events import prepared
from sdgrpc.client.loras import LoraLike, lora_messages
from sdgrpc.client.records import (
    Embedding,
    LoraDetails,
    LoraFile,
    LoraStrengthRange,
    Model,
    ServerStatus,
    UploadedLora,
)
from sdgrpc.domain import Prepared, UpscalerInfo
from sdgrpc.v1 import catalog_pb2 as pb

if TYPE_CHECKING:
    from sdgrpc.v1.catalog_pb2_grpc import CatalogServiceAsyncStub


class AsyncCatalogCalls(ABC):
    """What a server has; see `CatalogCalls`."""

    @property
    @abstractmethod
    def _catalog(self) -> CatalogServiceAsyncStub:
        """The stub, made at the first call."""

    async def list_models(self) -> tuple[Model, ...]:
        """Return the models that requests can name; the default comes first."""
        with _typed_failures():
            return tuple(
                map(catalog_messages.model, (await self._catalog.ListModels(pb.ListModelsRequest())).models)
            )

    async def list_upscalers(self) -> tuple[UpscalerInfo, ...]:
        """Return the upscalers that the server has; the default comes first."""
        with _typed_failures():
            return tuple(map(upscaler, (await self._catalog.ListModels(pb.ListModelsRequest())).upscalers))

    async def lora_strength_range(self) -> LoraStrengthRange:
        """Return the strengths of LoRAs that the server takes; see `CatalogCalls.lora_strength_range`."""
        with _typed_failures():
            return catalog_messages.lora_strength_range(
                await self._catalog.ListModels(pb.ListModelsRequest())
            )

    async def list_loras(
        self, *, base: str = "", model: str = "", fitting_only: bool = False, page_size: int = 0
    ) -> AsyncIterator[LoraFile]:
        """Yield the LoRA files by name, page after page; see `CatalogCalls.list_loras`."""
        token = ""
        while True:
            request = catalog_messages.list_loras_request(base, model, fitting_only, page_size, token)
            with _typed_failures():
                page = await self._catalog.ListLoras(request)
            for message in page.loras:
                yield catalog_messages.lora_file(message)
            token = page.next_page_token
            if not token:
                return

    async def list_embeddings(self, *, model: str = "", fitting_only: bool = False) -> tuple[Embedding, ...]:
        """Return the textual inversions by name; see `CatalogCalls.list_embeddings`."""
        request = pb.ListEmbeddingsRequest(model=model, fitting_only=fitting_only)
        with _typed_failures():
            return tuple(
                map(catalog_messages.embedding, (await self._catalog.ListEmbeddings(request)).embeddings)
            )

    async def get_lora(
        self, name: str = "", *, sha256: str = "", model: str = "", include_modules: bool = False
    ) -> LoraDetails:
        """Describe one LoRA file, by its name or its hash."""
        request = catalog_messages.get_lora_request(name, sha256, model, include_modules)
        with _typed_failures():
            return catalog_messages.lora_details(await self._catalog.GetLora(request))

    async def upload_lora(
        self,
        path: str | os.PathLike[str],
        *,
        name: str = "",
        timeout: float | None = None,  # noqa: ASYNC109 - a gRPC deadline
    ) -> UploadedLora:
        """Bring a LoRA file; see `CatalogCalls.upload_lora`. The file is read in a thread."""
        messages = catalog_messages.upload_requests(path, name)
        header = await asyncio.to_thread(next, messages)
        with _typed_failures():
            answer = await self._catalog.UploadLora(_threaded(header, messages), timeout=timeout)
        return catalog_messages.uploaded(answer)

    async def prepare_loras(
        self,
        loras: Iterable[LoraLike],
        *,
        model: str = "",
        timeout: float | None = None,  # noqa: ASYNC109 - a gRPC deadline
    ) -> Prepared:
        """Fuse a LoRA set ahead of its first use."""
        request = pb.PrepareLorasRequest(model=model, loras=lora_messages(loras))
        with _typed_failures():
            return prepared((await self._catalog.PrepareLoras(request, timeout=timeout)).prepared)

    @property
    def plans(self) -> AsyncPlans:
        """What jobs would do; see `CatalogCalls.plans`."""

        async def ask(
            request: pb.PlanJobRequest,
            timeout: float | None,  # noqa: ASYNC109 - a gRPC deadline
        ) -> pb.PlanJobResponse:
            with _typed_failures():
                return await self._catalog.PlanJob(request, timeout=timeout)

        return AsyncPlans(ask)

    async def watch_status(self, *, min_interval: float | None = None) -> AsyncIterator[ServerStatus]:
        """Yield the server's state now and whenever it changes; see `CatalogCalls.watch_status`."""
        call = self._catalog.WatchStatus(catalog_messages.watch_request(min_interval))
        try:
            with _typed_failures():
                async for message in call:
                    yield catalog_messages.server_status(message)
        finally:
            call.cancel()


async def _threaded(
    header: pb.UploadLoraRequest, rest: Iterator[pb.UploadLoraRequest]
) -> AsyncIterator[pb.UploadLoraRequest]:
    yield header
    while (message := await asyncio.to_thread(partial(next, rest, None))) is not None:
        yield message


@contextmanager
def _typed_failures() -> Iterator[None]:
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise server_error(error) from error
