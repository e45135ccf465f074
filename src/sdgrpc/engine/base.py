"""What the API asks of an engine."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Protocol

from sdgrpc.domain import (
    EmbeddingInfo,
    EngineStatus,
    Event,
    JobPlan,
    LoraDetails,
    LoraInfo,
    LoraPage,
    LoraQuery,
    LoraRef,
    ModelInfo,
    ModelState,
    Prepared,
    Task,
    UploadHeader,
    UpscaleEvent,
    UpscalerInfo,
    UpscaleTask,
)
from sdgrpc.engine.keeping.sharing import SharedJobs


def always() -> bool:
    """Want every preview."""
    return True


class Upload(Protocol):
    """A file on its way in; unless `commit` returns, nothing of it stays. The caller aborts it at last."""

    async def write(self, chunk: bytes) -> None:
        """Append bytes; raises InvalidRequest if they are too many, StorageFull if there is no room."""
        ...

    async def commit(self) -> None:
        """Verify, check and keep the file.

        Raises:
            InvalidRequest: the size or the hash is not the header's.
            LoraError: it cannot be used; the message says why.
            StorageFull: the disk is full.

        """
        ...

    def abort(self) -> None:
        """Leave nothing behind; does nothing after `commit`. Quick, so that a cancelled call can do it."""
        ...


class Upscales(Protocol):
    """Enlarges pictures by networks."""

    @property
    def infos(self) -> Sequence[UpscalerInfo]:
        """The upscalers that tasks can name; the first is the default."""
        ...

    def upscale(self, task: UpscaleTask) -> AsyncGenerator[UpscaleEvent, None]:
        """Enlarge a picture: `UpscaleAccepted UpscaleProgress* EncodedImage`. Closing it ends the work.

        Raises:
            QueueFull: too many wait, at once; EngineFailed, OutOfMemory, ModelError, Draining: later.

        """
        ...


class Replicas(Protocol):
    """The engines behind one: how many there are."""

    def drain(self, name: str) -> Sequence[str]:
        """Let a replica go, or those of a node, and keep that many fewer; returns their names.

        Raises:
            ReplicaNotFound: there is none of that name, nor on that node.

        """
        ...

    def scale(self, least: int, most: int) -> int:
        """Keep so many from now on; returns how many there were."""
        ...


class Engine(Protocol):
    """Runs tasks. Every method may be called from the event loop and returns without blocking it."""

    @property
    def models(self) -> Sequence[ModelInfo]:
        """The models that tasks can name, loaded or not; the first is the default."""
        ...

    def model_states(self) -> Sequence[ModelState]:
        """Tell for each of `models`, in their order, whether its weights are in memory, and their size."""
        ...

    def check_room(self, caller: str = "", *, ahead: int = 0, ahead_of_caller: int = 0) -> None:
        """Refuse at the door what `submit` would, before anything of a request is read.

        `ahead` requests, `ahead_of_caller` of them the caller's, count as queued though they are not yet.

        Raises:
            QueueFull, TokenQueueFull: the queue is full, or pictures that nobody takes fill the memory.
            Draining: the engine is closing.

        """
        ...

    def submit(
        self,
        task: Task,
        *,
        time_limit: float | None = None,
        previews_wanted: Callable[[], bool] = always,
    ) -> AsyncGenerator[Event, None]:
        """Queue `task` and yield its events: `Accepted Prepared (Progress | ImageReady)* Finished`.

        The job is queued at the first `anext`; after `time_limit` seconds from now it is dropped. Closing
        the generator (`aclose`) drops the job before its next step and gives back all it held. Reading
        slowly loses previews, nothing else; where `previews_wanted` says no at that moment, none is made.

        Raises:
            QueueFull: the queue is full, at once; TokenQueueFull: for jobs of this task's caller.
            Draining: the engine is closing.
            EngineFailed: it cannot go on, at once or later.
            DeadlineTooSoon: `time_limit` is less than it would take, at once; or it has passed.
            ModelNotFound, LoraNotFound: before `Accepted`; ModelError too if the model failed at the start.
            LoraError, OutOfMemory, NotAnInpaintingModel: later, as the job meets them.

        """
        ...

    async def list_loras(self, query: LoraQuery) -> LoraPage:
        """List LoRA files by name; raises ModelNotFound."""
        ...

    async def list_embeddings(self, model: str) -> Sequence[EmbeddingInfo]:
        """List the textual inversions by name, judged against `model`; raises ModelNotFound."""
        ...

    async def get_lora(self, ref: LoraRef, model: str, *, include_modules: bool) -> LoraDetails:
        """Describe a file, judged against `model`; raises ModelNotFound, LoraNotFound."""
        ...

    async def prepare_loras(self, model: str, loras: Sequence[LoraRef], *, caller: str = "") -> Prepared:
        """Fuse a set, which then stays until others need its room. Cancelling leaves nothing half done.

        It takes its turn among the jobs of `caller`.

        Raises:
            QueueFull, Draining, ModelNotFound, LoraNotFound, LoraError, OutOfMemory: as `submit`.

        """
        ...

    async def begin_upload(self, header: UploadHeader) -> Upload | LoraInfo:
        """Open an upload; or return the file if its content is there already, now under that name too.

        Raises:
            UploadsOff: the operator allows none.
            InvalidRequest: it is too large, or its name is that of a file in the server's folders.
            StorageFull: there is no room.

        """
        ...

    @property
    def upscaling(self) -> Upscales:
        """What enlarges pictures."""
        ...

    @property
    def replicas(self) -> Replicas | None:
        """The engines that this one is made of, if it is."""
        ...

    @property
    def shared_jobs(self) -> SharedJobs | None:
        """Where kept jobs are told to other servers of the same cluster, if there may be any."""
        ...

    async def plan(self, task: Task) -> JobPlan:
        """Tell what `task` would do, without drawing; it takes no place in the queue.

        Raises:
            QueueFull, Draining, EngineFailed, ModelNotFound, LoraNotFound, ModelError: as `submit` at once.
            InvalidRequest: a prompt has a word that the model cannot use, as `submit` later.

        """
        ...

    def status(self) -> EngineStatus:
        """Return the engine's load now."""
        ...

    async def failed(self) -> None:
        """Return once the engine cannot go on: a thread of it died or hangs, or its device is lost.

        Every job has ended by then with EngineFailed, and `close` waits for nothing. It may never happen.
        """
        ...

    async def drain(self) -> None:
        """Take no new jobs and return when the running and queued ones have ended."""
        ...

    async def close(self) -> None:
        """Drop every job, stop the threads, release the models. May be called twice."""
        ...
