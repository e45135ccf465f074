"""The catalog's calls for ordinary code."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING

import grpc

from sdgrpc.client import catalog_messages
from sdgrpc.client.drawing.plans import Plans
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
    from sdgrpc.v1.catalog_pb2_grpc import CatalogServiceStub


class CatalogCalls:
    """What a server has. Every call raises SdgrpcServerError, or one of its subclasses, if it fails."""

    _catalog: CatalogServiceStub

    def list_models(self) -> tuple[Model, ...]:
        """Return the models that requests can name; the default comes first."""
        with _typed_failures():
            return tuple(map(catalog_messages.model, self._catalog.ListModels(pb.ListModelsRequest()).models))

    def list_upscalers(self) -> tuple[UpscalerInfo, ...]:
        """Return the upscalers that the server has; the default comes first."""
        with _typed_failures():
            return tuple(map(upscaler, self._catalog.ListModels(pb.ListModelsRequest()).upscalers))

    def lora_strength_range(self) -> LoraStrengthRange:
        """Return the strengths of LoRAs that the server takes; its operator chooses them."""
        with _typed_failures():
            return catalog_messages.lora_strength_range(self._catalog.ListModels(pb.ListModelsRequest()))

    def list_loras(
        self, *, base: str = "", model: str = "", fitting_only: bool = False, page_size: int = 0
    ) -> Iterator[LoraFile]:
        """Yield the LoRA files by name, page after page.

        `base` leaves out those for others; `model` is what `fits` is about, the default if it is empty.
        """
        token = ""
        while True:
            request = catalog_messages.list_loras_request(base, model, fitting_only, page_size, token)
            with _typed_failures():
                page = self._catalog.ListLoras(request)
            yield from map(catalog_messages.lora_file, page.loras)
            token = page.next_page_token
            if not token:
                return

    def list_embeddings(self, *, model: str = "", fitting_only: bool = False) -> tuple[Embedding, ...]:
        """Return the textual inversions by name, judged against a model; empty is the server's default."""
        request = pb.ListEmbeddingsRequest(model=model, fitting_only=fitting_only)
        with _typed_failures():
            return tuple(map(catalog_messages.embedding, (self._catalog.ListEmbeddings(request)).embeddings))

    def get_lora(
        self, name: str = "", *, sha256: str = "", model: str = "", include_modules: bool = False
    ) -> LoraDetails:
        """Describe one LoRA file, by its name or its hash."""
        request = catalog_messages.get_lora_request(name, sha256, model, include_modules)
        with _typed_failures():
            return catalog_messages.lora_details(self._catalog.GetLora(request))

    def upload_lora(
        self, path: str | os.PathLike[str], *, name: str = "", timeout: float | None = None
    ) -> UploadedLora:
        """Bring a LoRA file; `name` is the file's own if it is empty. Known content is not sent again.

        Raises:
            OSError: the file cannot be read.

        """
        messages = catalog_messages.upload_requests(path, name)
        header = next(
            messages
        )  # read here, so that a missing file is the caller's error and not a broken call
        with _typed_failures():
            return catalog_messages.uploaded(
                self._catalog.UploadLora(chain([header], messages), timeout=timeout)
            )

    def prepare_loras(
        self, loras: Iterable[LoraLike], *, model: str = "", timeout: float | None = None
    ) -> Prepared:
        """Fuse a LoRA set ahead of its first use."""
        request = pb.PrepareLorasRequest(model=model, loras=lora_messages(loras))
        with _typed_failures():
            return prepared(self._catalog.PrepareLoras(request, timeout=timeout).prepared)

    @property
    def plans(self) -> Plans:
        """What jobs would do: `plans.generate(…)` takes what `generate` does and draws nothing."""

        def ask(request: pb.PlanJobRequest, timeout: float | None) -> pb.PlanJobResponse:
            with _typed_failures():
                return self._catalog.PlanJob(request, timeout=timeout)

        return Plans(ask)

    def watch_status(self, *, min_interval: float | None = None) -> Iterator[ServerStatus]:
        """Yield the server's state now and whenever it changes, at most every `min_interval` seconds.

        It ends when the iterator is closed, or with UnavailableError when the server stops.
        """
        call = self._catalog.WatchStatus(catalog_messages.watch_request(min_interval))
        try:
            with _typed_failures():
                yield from map(catalog_messages.server_status, call)
        finally:
            call.cancel()


@contextmanager
def _typed_failures() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        raise server_error(error) from error
