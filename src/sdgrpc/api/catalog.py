"""The catalog's calls: what the server has, what it is brought, how it is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from grpc import aio

from sdgrpc.api import catalog_codec as codec
from sdgrpc.api.access.callers import caller
from sdgrpc.api.catalog_rules import catalog_tables, judge, model_of, refuse
from sdgrpc.api.codec import Request, lora_ref, prepared
from sdgrpc.api.gate import Gate
from sdgrpc.api.loras import files
from sdgrpc.api.loras.together import misfits
from sdgrpc.api.pictures.upscaling import listed
from sdgrpc.api.uploading import receive
from sdgrpc.api.watching import Watchers
from sdgrpc.domain import LoraQuery, LoraRef, Task
from sdgrpc.engine.base import Engine
from sdgrpc.settings import Settings
from sdgrpc.v1 import catalog_pb2 as pb
from sdgrpc.v1 import catalog_pb2_grpc as pb_grpc

DEFAULT_PAGE = 100

Context = aio.ServicerContext[Any, Any]
ReadTask = Callable[[Request, Engine], Awaitable[Task]]


class CatalogServicer(pb_grpc.CatalogServiceServicer):
    """Answers about the engine behind `gate`, and takes files for it. `read` judges requests that draw."""

    def __init__(self, settings: Settings, gate: Gate, read: ReadTask) -> None:
        self._read = read
        self._tables, self._gate = catalog_tables(settings), gate
        self._strengths = pb.LoraStrengthRange(
            minimum=settings.lora_strength_min, maximum=settings.lora_strength_max
        )
        self._settings = settings
        self._watchers = Watchers(gate)
        self._least_rate = settings.min_upload_bytes_per_second

    async def ListModels(  # noqa: N802 - the contract's name, for every call here
        self, request: pb.ListModelsRequest, context: Context
    ) -> pb.ListModelsResponse:
        """See the contract."""
        del request, context
        engine = self._gate.engine()
        return pb.ListModelsResponse(
            models=map(codec.model, engine.model_states()),
            lora_strength_range=self._strengths,
            upscalers=map(listed, engine.upscaling.infos),
        )

    async def ListLoras(  # noqa: N802
        self, request: pb.ListLorasRequest, context: Context
    ) -> pb.ListLorasResponse:
        """See the contract."""
        del context
        judge(request, self._tables)
        after = codec.page_start(request)
        engine = self._gate.engine()
        query = LoraQuery(
            model=model_of(request.model, engine.models).name,
            limit=request.page_size or DEFAULT_PAGE,
            after=after,
            base=request.base,
            fitting_only=request.fitting_only,
        )
        with self._gate.visit():
            page = await engine.list_loras(query)
        token = codec.page_token(request, page.loras[-1].name) if page.more else ""
        return pb.ListLorasResponse(loras=map(files.lora_file, page.loras), next_page_token=token)

    async def GetLora(  # noqa: N802
        self, request: pb.GetLoraRequest, context: Context
    ) -> pb.GetLoraResponse:
        """See the contract."""
        del context
        judge(request, self._tables)
        engine = self._gate.engine()
        ref = LoraRef(name=request.name, sha256=request.sha256.lower())
        model = model_of(request.model, engine.models).name
        with self._gate.visit():
            details = await engine.get_lora(ref, model, include_modules=request.include_modules)
        return files.lora_details(details)

    async def ListEmbeddings(  # noqa: N802
        self, request: pb.ListEmbeddingsRequest, context: Context
    ) -> pb.ListEmbeddingsResponse:
        """See the contract."""
        del context
        judge(request, self._tables)
        engine = self._gate.engine()
        with self._gate.visit():
            found = await engine.list_embeddings(model_of(request.model, engine.models).name)
        chosen = (one for one in found if one.fits or not request.fitting_only)
        return pb.ListEmbeddingsResponse(embeddings=map(files.embedding, chosen))

    async def UploadLora(  # noqa: N802
        self, request_iterator: object, context: Context
    ) -> pb.UploadLoraResponse:
        """See the contract."""
        del request_iterator  # reading by the context tells the end from a cancelled call
        with self._gate.enter() as engine:
            return await receive(context, engine, self._tables, self._least_rate)

    async def PrepareLoras(  # noqa: N802
        self, request: pb.PrepareLorasRequest, context: Context
    ) -> pb.PrepareLorasResponse:
        """See the contract."""
        del context
        judge(request, self._tables)
        with self._gate.enter() as engine:
            model = model_of(request.model, engine.models)
            refuse(misfits(request.loras, model.base, self._settings), below="loras")
            refs = tuple(lora_ref(lora, model.base) for lora in request.loras)
            report = await engine.prepare_loras(model.name, refs, caller=caller())
            return pb.PrepareLorasResponse(prepared=prepared(report))

    async def PlanJob(  # noqa: N802
        self, request: pb.PlanJobRequest, context: Context
    ) -> pb.PlanJobResponse:
        """See the contract."""
        del context
        judge(request, self._tables)
        with self._gate.enter() as engine:
            task = await self._read(getattr(request, request.WhichOneof("request") or ""), engine)
            return codec.planned(await engine.plan(task))

    async def WatchStatus(  # type: ignore[override]  # noqa: N802 - writes, as DiffusionServicer's calls
        self, request: pb.WatchStatusRequest, context: Context
    ) -> None:
        """See the contract."""
        judge(request, self._tables)
        await self._watchers.watch(request, context)
