"""Which queued job begins next, given that only some models fit in memory. Never sees a tensor; no torch.

A job whose model is in memory may begin at once. One whose model is not has it loaded, beside everything
else, as soon as there is a slot: a free one, or that of a model that no job uses, the one used longest ago
first. A model with jobs is never put out. While a job waits for a slot, jobs of the models in memory may
overtake it `max_overtakes` times, so that models are not exchanged for every request; then none begins until
its model is being loaded, so that its wait is bounded by the jobs that have begun. The oldest is the first in
the order of `Turns`, which is that of age unless several callers wait.

A lease (`PrepareLoras`) is treated as a job that the loop does not know.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import Generic, TypeVar

from sdgrpc.engine.job import Job
from sdgrpc.engine.models.lease import ModelLease
from sdgrpc.engine.queueing.turns import Turns, Waiting
from sdgrpc.errors import Draining, EngineFailed, ModelError, OutOfMemory, SdgrpcError

logger = logging.getLogger(__name__)

M = TypeVar("M")

Failure = Callable[[], SdgrpcError]
"""Makes what is raised; an error that was raised before would keep what it was raised in."""


class ModelPool(Generic[M]):
    """Keeps at most `capacity` models in memory. Implements QueuePolicy; thread safe.

    Args:
        held: models that are there and stay, by name; they take no slot.
        load: makes a model; runs on the loader's thread.
        unload: frees one that nobody uses any more; runs there too, before the next is loaded.
        capacity: how many others may be there at a time.
        max_overtakes: how many may begin before one that waits for a slot.
        turns: whose turn it is.
        loader: what runs `load` and `unload`, one at a time; a thread of its own unless given.

    """

    def __init__(
        self,
        held: Mapping[str, M],
        *,
        load: Callable[[str], M],
        unload: Callable[[M], None],
        capacity: int = 1,
        max_overtakes: int = 8,
        turns: Turns | None = None,
        loader: Executor | None = None,
    ) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self._resident = dict(held)  # the one used longest ago first
        self._held = frozenset(held)
        self._load, self._unload = load, unload
        self._turns = turns or Turns()
        self._capacity, self._max_overtakes = capacity, max_overtakes
        self._leases: dict[int, ModelLease[M]] = {}  # that wait
        self._users: dict[int, str] = {}  # begun and not ended: id -> model, empty where it failed
        self._failures: dict[int, Failure] = {}  # of those who asked for a model that could not be loaded
        self._loading = ""
        self._blocked: Waiting | None = None  # the oldest that waits for a slot
        self._overtakes: dict[Waiting, int] = {}  # how many began before those that were the oldest
        self._closed = False
        self._lock = threading.Lock()
        self._loader = loader or ThreadPoolExecutor(max_workers=1, thread_name_prefix="sdgrpc-model")

    def resident(self) -> dict[str, M]:
        """The models in memory now."""
        with self._lock:
            return dict(self._resident)

    def of(self, job_id: int) -> M:
        """Return the model of a job that was chosen.

        Raises:
            ModelError, OutOfMemory: it could not be loaded.

        """
        with self._lock:
            if job_id in self._failures:
                raise self._failures[job_id]()
            return self._resident[self._users[job_id]]

    def choose(self, queued: Iterable[Job], *, room: bool) -> Job | None:
        """See `QueuePolicy.choose`; begins to load where somebody waits for that, and lets leases begin."""
        with self._lock:
            if self._closed:
                return None
            jobs = {job.job_id: job for job in queued}
            present = [*map(Waiting.of, jobs.values()), *(lease.waiting for lease in self._leases.values())]
            self._forget_absent(present)
            waiting_all = self._turns.order(present)
            self._make_room(waiting_all)
            overtakes = False
            for waiting in waiting_all:
                lease = self._leases.get(waiting.waiting_id)
                if (lease is not None or room) and self._begin(waiting, overtakes=overtakes):
                    if lease is None:
                        return jobs[waiting.waiting_id]
                    self._grant(lease)
                overtakes = overtakes or waiting == self._blocked
            return None

    def place(self, queued: Iterable[Job], job: Job) -> int:
        """See `QueuePolicy.place`."""
        with self._lock:
            return self._turns.place(queued, job)

    def leave(self, job: Job) -> None:
        """See `QueuePolicy.leave`."""
        with self._lock:
            self._forget(job.job_id)

    def lease(self, waiting_id: int, model: str, caller: str = "") -> ModelLease[M]:
        """Ask for a model outside the loop; the ids are those of jobs, and order both by age."""
        lease = ModelLease[M](Waiting(waiting_id, model, caller), self._end_lease)
        with self._lock:
            if self._closed:
                raise Draining("the server is stopping; send the call to another")
            self._leases[waiting_id] = lease
            if self._blocked is None and model in self._resident and self._turns.order([lease.waiting]):
                self._begin(lease.waiting, overtakes=False)
                self._grant(lease)
        self.on_change()
        return lease

    def close(self, *, wait: bool = True) -> None:
        """Begin nothing more, and `wait` for what is being loaded. May be called twice."""
        with self._lock:
            self._closed = True
            leases = list(self._leases.values())
            self._leases.clear()
        for lease in leases:
            if lease.model.set_running_or_notify_cancel():
                lease.model.set_exception(Draining("the server stopped before this call's turn"))
        self._loader.shutdown(wait=wait)

    def clear(self) -> list[M]:
        """Forget every model, once nobody uses one any more, and return them."""
        with self._lock:
            models = list(self._resident.values())
            self._resident.clear()
            return models

    # Everything below needs the lock, but for what runs on the loader's thread.

    def _make_room(self, waiting_all: Sequence[Waiting]) -> None:
        """Load the model of the oldest who lacks it, unless one is being loaded or no slot can be made."""
        lacking = next((waiting for waiting in waiting_all if self._lacks(waiting)), None)
        if lacking is not None and not self._loading:
            self._begin_loading(lacking, waiting_all)
        self._blocked = lacking if lacking is not None and lacking.model != self._loading else None

    def _lacks(self, waiting: Waiting) -> bool:
        return waiting.model not in self._resident and waiting.waiting_id not in self._failures

    def _forget_absent(self, present: Sequence[Waiting]) -> None:
        """Forget what was kept of those who left. One that held others up has had its caller's turn."""
        ids = self._users.keys() | {waiting.waiting_id for waiting in present}
        self._failures = {key: text for key, text in self._failures.items() if key in ids}
        for gone in self._overtakes.keys() - set(present):
            del self._overtakes[gone]
            self._turns.spend(gone.caller)

    def _begin(self, waiting: Waiting, *, overtakes: bool) -> bool:
        """Let somebody begin if their model is there, or failed, and they overtake nobody too often."""
        if waiting.waiting_id in self._failures:
            self._started(waiting, "")
            return True
        if waiting.model not in self._resident:
            return False
        if overtakes and self._blocked is not None:
            if self._overtakes.get(self._blocked, 0) >= self._max_overtakes:
                return False
            self._overtakes[self._blocked] = self._overtakes.get(self._blocked, 0) + 1
        self._started(waiting, waiting.model)
        self._resident[waiting.model] = self._resident.pop(waiting.model)
        return True

    def _started(self, waiting: Waiting, model: str) -> None:
        self._turns.begin(waiting)
        self._overtakes.pop(waiting, None)
        self._users[waiting.waiting_id] = model

    def _grant(self, lease: ModelLease[M]) -> None:
        waiting = self._leases.pop(lease.waiting.waiting_id).waiting
        failure = self._failures.get(waiting.waiting_id)
        if not lease.model.set_running_or_notify_cancel():
            self._forget(waiting.waiting_id)
        elif failure is not None:
            lease.model.set_exception(failure())
        else:
            lease.model.set_result(self._resident[waiting.model])

    def _forget(self, waiting_id: int) -> None:
        self._leases.pop(waiting_id, None)
        self._users.pop(waiting_id, None)
        self._failures.pop(waiting_id, None)
        self._turns.end(waiting_id)

    def _end_lease(self, waiting_id: int) -> None:
        with self._lock:
            self._forget(waiting_id)
        self.on_change()

    def _begin_loading(self, lacking: Waiting, waiting_all: Sequence[Waiting]) -> None:
        slot: list[M] = []
        if len(self._resident.keys() - self._held) >= self._capacity:
            older = {waiting.model for waiting in waiting_all[: waiting_all.index(lacking)]}
            busy = {*self._users.values(), *older, *self._held}
            victim = next((name for name in self._resident if name not in busy), None)
            if victim is None:
                return
            slot.append(self._resident.pop(victim))
            logger.info("model %s makes room for %s", victim, lacking.model)
        self._loading = lacking.model
        asking = [waiting.waiting_id for waiting in waiting_all if waiting.model == lacking.model]
        self._loader.submit(self._exchange, lacking.model, slot, asking)

    def _exchange(self, name: str, slot: list[M], asking: Sequence[int]) -> None:
        """Free what is in `slot`, of which nobody else knows, and load a model; on the loader's thread."""
        made: M | None = None
        failure: Failure | None = None
        try:
            while slot:
                self._unload(slot.pop())
            made = self._load(name)
        except Exception as error:  # whatever it is, it is for those who asked
            # Only the text: the traceback would keep what was loaded in memory.
            known = isinstance(error, SdgrpcError)
            text = str(error) if known else f"the model {name} cannot be loaded: {error!r}"
            kind = type(error) if isinstance(error, (OutOfMemory, EngineFailed)) else ModelError
            failure = partial(kind, text)
            logger.warning("loading model %s failed: %s", name, text, exc_info=not known)
        with self._lock:
            self._loading = ""
            if failure is not None:
                self._failures.update(dict.fromkeys(asking, failure))
            elif made is not None:
                self._resident[name] = made
        self.on_change()
