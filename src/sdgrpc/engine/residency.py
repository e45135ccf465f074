"""Which queued job begins next, given that only some models fit in memory. Never sees a tensor; no torch.

A job whose model is in memory may begin at once. One whose model is not has it loaded, beside everything
else, as soon as there is a place: a free one, or that of a model that no job uses, the one used longest ago
first. A model with jobs is never put out. While a job waits for a place, jobs of the models in memory may
overtake it `max_overtakes` times, so that models are not exchanged for every request; then none begins until
its model is being loaded, so that its wait is bounded by the jobs that have begun.

A visit (`PrepareLoras`) is treated as a job that the loop does not know.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Generic, NamedTuple, TypeVar

from sdgrpc.engine.job import Job
from sdgrpc.errors import Draining, ModelError, SdgrpcError

logger = logging.getLogger(__name__)

M = TypeVar("M")


class Wish(NamedTuple):
    """Somebody who wants a model: a queued job or a visit, the older the smaller the id."""

    wish_id: int
    model: str


class Visit(Generic[M]):
    """A use of a model outside the loop; `model` gives it once it is there. Whoever made it calls `leave`."""

    def __init__(self, wish: Wish, leave: Callable[[int], None]) -> None:
        self.wish = wish
        self.model: Future[M] = Future()
        self._leave = leave

    def leave(self) -> None:
        """Let the model go, or stop waiting for it. May be called twice."""
        self._leave(self.wish.wish_id)


class ModelPool(Generic[M]):
    """Keeps at most `capacity` models in memory. Implements Admission; thread safe.

    Args:
        held: models that are there and stay, by name; they take no place.
        load: makes a model; runs on the loader's thread.
        unload: frees one that nobody uses any more; runs there too, before the next is loaded.
        capacity: how many others may be there at a time.
        max_overtakes: how many may begin before one that waits for a place.
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
        loader: Executor | None = None,
    ) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self._resident = dict(held)  # the one used longest ago first
        self._held = frozenset(held)
        self._load, self._unload = load, unload
        self._capacity, self._max_overtakes = capacity, max_overtakes
        self._visits: dict[int, Visit[M]] = {}  # that wait
        self._users: dict[int, str] = {}  # begun and not ended: id -> model, empty where it failed
        self._failures: dict[int, str] = {}  # of those who asked for a model that could not be loaded
        self._loading = ""
        self._blocked = -1  # the oldest that waits for a place
        self._overtakes = 0  # how many began before it
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
            ModelError: it could not be loaded.

        """
        with self._lock:
            if job_id in self._failures:
                raise ModelError(self._failures[job_id])
            return self._resident[self._users[job_id]]

    def choose(self, queued: Iterable[Job], *, room: bool) -> Job | None:
        """See `Admission.choose`; begins to load where somebody waits for that, and lets visits begin."""
        with self._lock:
            if self._closed:
                return None
            jobs = {job.job_id: job for job in queued}
            waiting = [Wish(job_id, job.task.model) for job_id, job in jobs.items()]
            wishes = sorted([*waiting, *(visit.wish for visit in self._visits.values())])
            present = self._users.keys() | {wish.wish_id for wish in wishes}
            self._failures = {key: text for key, text in self._failures.items() if key in present}
            self._make_room(wishes)
            for wish in wishes:
                visit = self._visits.get(wish.wish_id)
                if (visit is not None or room) and self._begin(wish):
                    if visit is None:
                        return jobs[wish.wish_id]
                    self._grant(visit)
            return None

    def leave(self, job: Job) -> None:
        """See `Admission.leave`."""
        with self._lock:
            self._forget(job.job_id)

    def visit(self, wish_id: int, model: str) -> Visit[M]:
        """Ask for a model outside the loop; the ids are those of jobs, and order both by age."""
        visit = Visit[M](Wish(wish_id, model), self._end_visit)
        with self._lock:
            if self._closed:
                raise Draining("the server is stopping; send the call to another")
            self._visits[wish_id] = visit
            if self._blocked < 0 and model in self._resident and self._begin(visit.wish):
                self._grant(visit)
        self.on_change()
        return visit

    def close(self) -> None:
        """Wait for what is being loaded, and begin nothing more. May be called twice."""
        with self._lock:
            self._closed = True
            visits = list(self._visits.values())
            self._visits.clear()
        for visit in visits:
            if visit.model.set_running_or_notify_cancel():
                visit.model.set_exception(Draining("the server stopped before this call's turn"))
        self._loader.shutdown()

    def clear(self) -> list[M]:
        """Forget every model, once nobody uses one any more, and return them."""
        with self._lock:
            models = list(self._resident.values())
            self._resident.clear()
            return models

    # Everything below needs the lock, but for what runs on the loader's thread.

    def _make_room(self, wishes: Sequence[Wish]) -> None:
        """Load the model of the oldest who lacks it, unless one is being loaded or no place can be made."""
        lacking = next((wish for wish in wishes if self._lacks(wish)), None)
        if lacking is not None and not self._loading:
            self._begin_loading(lacking, wishes)
        blocked = lacking is not None and lacking.model != self._loading
        blocked_id = lacking.wish_id if lacking is not None and blocked else -1
        if blocked_id != self._blocked:
            self._blocked, self._overtakes = blocked_id, 0

    def _lacks(self, wish: Wish) -> bool:
        return wish.model not in self._resident and wish.wish_id not in self._failures

    def _begin(self, wish: Wish) -> bool:
        """Let somebody begin if their model is there, or failed, and they overtake nobody too often."""
        if wish.wish_id in self._failures:
            self._users[wish.wish_id] = ""
            return True
        if wish.model not in self._resident:
            return False
        if 0 <= self._blocked < wish.wish_id:
            if self._overtakes >= self._max_overtakes:
                return False
            self._overtakes += 1
        self._users[wish.wish_id] = wish.model
        self._resident[wish.model] = self._resident.pop(wish.model)
        return True

    def _grant(self, visit: Visit[M]) -> None:
        wish = self._visits.pop(visit.wish.wish_id).wish
        failure = self._failures.get(wish.wish_id)
        if not visit.model.set_running_or_notify_cancel():
            self._forget(wish.wish_id)
        elif failure is not None:
            visit.model.set_exception(ModelError(failure))
        else:
            visit.model.set_result(self._resident[wish.model])

    def _forget(self, wish_id: int) -> None:
        self._visits.pop(wish_id, None)
        self._users.pop(wish_id, None)
        self._failures.pop(wish_id, None)

    def _end_visit(self, wish_id: int) -> None:
        with self._lock:
            self._forget(wish_id)
        self.on_change()

    def _begin_loading(self, lacking: Wish, wishes: Sequence[Wish]) -> None:
        place: list[M] = []
        if len(self._resident.keys() - self._held) >= self._capacity:
            older = {wish.model for wish in wishes if wish < lacking}
            busy = {*self._users.values(), *older, *self._held}
            victim = next((name for name in self._resident if name not in busy), None)
            if victim is None:
                return
            place.append(self._resident.pop(victim))
            logger.info("model %s makes room for %s", victim, lacking.model)
        self._loading = lacking.model
        asking = [wish.wish_id for wish in wishes if wish.model == lacking.model]
        self._loader.submit(self._exchange, lacking.model, place, asking)

    def _exchange(self, name: str, place: list[M], asking: Sequence[int]) -> None:
        """Free what is in `place`, of which nobody else knows, and load a model; on the loader's thread."""
        made: M | None = None
        failure = ""
        try:
            while place:
                self._unload(place.pop())
            made = self._load(name)
        except Exception as error:  # whatever it is, it is for those who asked
            # Only the text: the traceback would keep what was loaded in memory.
            known = isinstance(error, SdgrpcError)
            failure = str(error) if known else f"the model {name} cannot be loaded: {error!r}"
            logger.warning("loading model %s failed: %s", name, failure, exc_info=not known)
        with self._lock:
            self._loading = ""
            if made is None:
                self._failures.update(dict.fromkeys(asking, failure))
            else:
                self._resident[name] = made
        self.on_change()
