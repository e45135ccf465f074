"""What the engine tells of its LoRA files, and how it takes new ones."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TypeVar

import torch

from sdgrpc.domain import (
    EmbeddingInfo,
    LoraDetails,
    LoraInfo,
    LoraPage,
    LoraQuery,
    LoraRef,
    Prepared,
    UploadHeader,
)
from sdgrpc.engine.loop import EngineLoop
from sdgrpc.engine.models.served_model import ServedModel
from sdgrpc.engine.models.served_models import ServedModels
from sdgrpc.engine.queueing.turns import check_sets
from sdgrpc.engine.supervision.call_times import CallShape
from sdgrpc.engine.supervision.supervisor import Supervisor
from sdgrpc.engine.thumbnails import Thumbnails
from sdgrpc.errors import Draining, QueueFull
from sdgrpc.lora.bases.target import Target
from sdgrpc.lora.describing.listing import LoraCatalog
from sdgrpc.lora.embeddings.library import EmbeddingLibrary
from sdgrpc.lora.store.library import LoraLibrary
from sdgrpc.lora.store.upload import IncomingFile
from sdgrpc.machine.out_of_memory import as_out_of_memory

T = TypeVar("T")


class EngineCatalog:
    """Answers the catalog's questions in threads of its own, so that no job waits for a folder's hashes.

    They are `sdgrpc-catalog`, `sdgrpc-fuse-ahead` for PrepareLoras and `sdgrpc-upload`.

    `ids` are those of the loop's jobs too: a set to prepare waits its turn among them where its model has to
    be loaded.
    """

    def __init__(
        self,
        models: ServedModels,
        library: LoraLibrary,
        loop: EngineLoop,
        max_upload_bytes: int,
        ids: Iterator[int],
        supervisor: Supervisor,
        embeddings: EmbeddingLibrary | None = None,
    ) -> None:
        self._embeddings = embeddings or EmbeddingLibrary()
        self._models, self._library, self._loop = models, library, loop
        self._supervisor = supervisor
        self._max_upload_bytes, self._ids = max_upload_bytes, ids
        self._catalog, self._thumbnails = LoraCatalog(library), Thumbnails()
        self._closing = threading.Event()
        self._preparing: Counter[str] = Counter()  # sets on their way, by caller
        self._readers = ThreadPoolExecutor(max_workers=2, thread_name_prefix="sdgrpc-catalog")
        self._fusers = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sdgrpc-fuse-ahead")
        self._writers = ThreadPoolExecutor(max_workers=4, thread_name_prefix="sdgrpc-upload")

    def close(self) -> None:
        """End the threads; blocks for what they do now. May be called twice."""
        self._closing.set()
        self._thumbnails.close()
        for threads in (self._readers, self._fusers, self._writers):
            threads.shutdown(wait=not self._supervisor.failed, cancel_futures=True)
        self._library.close()

    async def list_loras(self, query: LoraQuery) -> LoraPage:
        """See `Engine.list_loras`."""
        target, unwanted = self._models.target(query.model), threading.Event()

        def page() -> LoraPage:
            with self._supervisor.call(CallShape("list")) as beat:

                def is_unwanted() -> bool:
                    beat()  # the hashes of a large folder take long, but each file ends
                    return unwanted.is_set() or self._closing.is_set()

                return self._catalog.page(query, target, is_unwanted)

        try:
            return await _outcome(self._readers.submit(page))
        finally:
            unwanted.set()

    async def get_lora(self, ref: LoraRef, model: str, *, include_modules: bool) -> LoraDetails:
        """See `Engine.get_lora`."""
        target = self._models.target(model)
        return await self._in(
            self._readers,
            "describe",
            lambda: self._details(ref, model, target, include_modules=include_modules),
        )

    async def list_embeddings(self, model: str) -> Sequence[EmbeddingInfo]:
        """See `Engine.list_embeddings`."""
        widths = self._models.target(model).names.token_widths
        return await self._in(self._readers, "list", lambda: self._embeddings.listed(widths))

    def _details(self, ref: LoraRef, model: str, target: Target, *, include_modules: bool) -> LoraDetails:
        """Describe a file, with a thumbnail of the picture beside it."""
        details = self._catalog.details(ref, model, target, include_modules=include_modules)
        if not (picture := details.picture):
            return details
        made = self._thumbnails.of(picture, partial(self._library.picture, picture))
        if isinstance(made, str):
            said = f"{picture.name} is ignored: it {made}"
            return replace(details, beside_warnings=(*details.beside_warnings, said))
        return replace(details, thumbnail=made)

    async def prepare_loras(self, model: str, loras: Sequence[LoraRef], *, caller: str = "") -> Prepared:
        """See `Engine.prepare_loras`."""
        self._models.check_usable(model)
        self._loop.queue.check_room(caller)
        self._check_preparing(caller)
        lease = self._models.lease(next(self._ids), model, caller)
        self._preparing[caller] += 1
        try:
            served = await _outcome(lease.model)
            shape = CallShape("fuse", model, (1 + len(loras),))
            preparing = self._fusers.submit(
                self._supervisor.run, shape, partial(self._prepare, served, loras)
            )
        except BaseException:
            self._preparing[caller] -= 1
            lease.leave()
            raise
        preparing.add_done_callback(lambda _: lease.leave())  # not before the thread lets go of the model
        try:
            return await _outcome(preparing)
        finally:
            self._preparing[caller] -= 1

    def _check_preparing(self, caller: str) -> None:
        options, preparing = self._loop.queue.options, self._preparing.total()
        if preparing >= options.queue_size:
            raise QueueFull(f"{preparing} sets wait to be prepared already", retry_after=1.0)
        check_sets(self._preparing[caller], caller, options.max_queued_jobs_per_token)

    def _prepare(self, served: ServedModel, loras: Sequence[LoraRef]) -> Prepared:
        files = [self._library.find(ref) for ref in loras]

        def fuse() -> Prepared:
            members = list(zip(files, loras, strict=True))
            with torch.inference_mode(), served.sets.acquire(members) as lease:
                return Prepared(lease.reports, lease.set_id, lease.cached, lease.fuse_seconds)

        with self._library.in_use(files):
            return as_out_of_memory(fuse, served.model.device)

    async def begin_upload(self, header: UploadHeader) -> OpenUpload | LoraInfo:
        """See `Engine.begin_upload`."""
        beginning = self._submit(self._writers, "open", lambda: self._begin(header))
        try:
            begun = await _outcome(beginning)
        except BaseException:
            beginning.add_done_callback(_abandon)  # the call has gone: nobody else would abort it
            raise
        if isinstance(begun, LoraInfo):
            return begun
        return OpenUpload(begun, partial(self._in, self._writers))

    async def _in(self, threads: ThreadPoolExecutor, verb: str, work: Callable[[], T]) -> T:
        """Run `work` in a thread, watched over; Draining if the engine is closed before its turn comes."""
        return await _outcome(self._submit(threads, verb, work))

    def _submit(self, threads: ThreadPoolExecutor, verb: str, work: Callable[[], T]) -> Future[T]:
        return threads.submit(self._supervisor.run, CallShape(verb), work)

    def _begin(self, header: UploadHeader) -> IncomingFile | LoraInfo:
        begun = self._library.begin_upload(header, self._max_upload_bytes)
        if isinstance(begun, IncomingFile):
            return begun
        name = self._models.default
        ref = LoraRef(name=header.name)
        return self._catalog.details(ref, name, self._models.target(name), include_modules=False).info


class OpenUpload:
    """An upload whose work is done in threads. Implements `engine.base.Upload`."""

    def __init__(
        self, upload: IncomingFile, in_thread: Callable[[str, Callable[[], None]], Awaitable[None]]
    ) -> None:
        self._upload, self._in_thread = upload, in_thread

    async def write(self, chunk: bytes) -> None:
        """See `Upload.write`."""
        await self._in_thread("write", lambda: self._upload.write(chunk))

    async def commit(self) -> None:
        """See `Upload.commit`."""
        await self._in_thread("commit", self._upload.commit)

    def abort(self) -> None:
        """See `Upload.abort`."""
        self._upload.abort()


def _abandon(beginning: Future[IncomingFile | LoraInfo]) -> None:
    if not beginning.cancelled() and beginning.exception() is None:
        begun = beginning.result()
        if isinstance(begun, IncomingFile):
            begun.abort()


async def _outcome(future: Future[T]) -> T:
    """Wait for what a thread makes; Draining if the engine is closed before its turn comes."""
    try:
        return await asyncio.wrap_future(future)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise Draining("the server stopped before this call's turn; send it to another") from None
