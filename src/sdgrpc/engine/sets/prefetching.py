"""The LoRA files of jobs that wait, read and parsed before their turn comes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor

from sdgrpc.domain.phases import phases
from sdgrpc.engine.job import Job, Unwanted
from sdgrpc.engine.models.served_model import ServedModel
from sdgrpc.engine.queueing.turns import Turns, Waiting
from sdgrpc.engine.supervision.call_times import CallShape
from sdgrpc.engine.supervision.supervisor import Supervisor
from sdgrpc.engine.work import LocalWork
from sdgrpc.lora.store.contents import FoundLora
from sdgrpc.lora.store.parsed import ParsedFiles
from sdgrpc.machine.free_memory import available_bytes

READERS = 2
SHARE = 2
"""One part of so many of what parsed files may take is for those of jobs that wait."""


class Prefetching:
    """Reads ahead what the sets of waiting jobs will be made of, beside the steps of others. Thread safe.

    The files of those who wait are kept among the parsed ones, caller by caller and the oldest jobs' first,
    up to half of what these may take; what lacks is read on `sdgrpc-prefetch`. Nothing is read for a set that
    is there. A read ends early once nobody waits for it any more. What is wrong with a file is said when its
    job's turn comes, which reads it again then.

    Args:
        parsed: where files go once they are read.
        jobs: all that have not ended, those that have begun first.
        resident: the models in memory.
        supervisor: watches over the threads.
        on: whether to read ahead at all.
        free_bytes: the memory that can still be had.
        threads: what reads; two threads of its own unless given.

    """

    def __init__(
        self,
        parsed: ParsedFiles,
        jobs: Callable[[], Iterable[Job]],
        resident: Callable[[], Mapping[str, ServedModel]],
        supervisor: Supervisor,
        *,
        on: bool = True,
        free_bytes: Callable[[], float] = available_bytes,
        threads: Executor | None = None,
    ) -> None:
        self._parsed, self._jobs, self._resident = parsed, jobs, resident
        self._supervisor, self._on, self._free_bytes = supervisor, on, free_bytes
        self._wanted: dict[str, FoundLora] = {}  # by identity, in the order in which they are read
        self._reading: set[str] = set()
        self._refused: set[str] = set()  # of those wanted: they could not be read
        self._read: set[str] = set()  # of those wanted: they were read here
        self._lock = threading.Lock()
        self._submitted = 0  # reads that no thread has come to yet
        self._threads = threads or ThreadPoolExecutor(READERS, "sdgrpc-prefetch")

    def work(self, opened: Callable[[], ServedModel], finding: Future[Sequence[FoundLora]]) -> LocalWork:
        """Return what a job is to hold, whose files are read ahead once it is queued."""
        return LocalWork(opened, finding=finding, when_settled=self.look, was_read_ahead=self.has_read)

    def look(self) -> None:
        """Look who waits for which files: to be called when a job came, has its sets, or ended."""
        with self._lock:
            if not self._on:
                return
            self._want(self._chosen())
            missing = len(self._missing())
            while self._submitted < missing:
                self._submitted += 1
                self._threads.submit(self._read_next)

    def has_read(self, file: FoundLora) -> bool:
        """Tell whether a file that somebody waits for is there since it was read ahead."""
        with self._lock:
            return file.identity in self._read

    def close(self) -> None:
        """Read nothing more; blocks for the pieces that are being read. May be called twice."""
        with self._lock:
            self._on = False
            self._want({})
        self._threads.shutdown(wait=not self._supervisor.failed, cancel_futures=True)

    # The lock is needed by what follows, up to the threads' own.

    def _want(self, wanted: dict[str, FoundLora]) -> None:
        self._wanted = wanted
        self._refused &= wanted.keys()
        self._read &= wanted.keys()
        self._parsed.keep(frozenset(wanted))

    def _chosen(self) -> dict[str, FoundLora]:
        """The files of those who wait, as many as there is room for."""
        room, chosen = self._parsed.capacity_bytes // SHARE, dict[str, FoundLora]()
        for file in self._awaited():
            if file.identity not in chosen and file.nbytes <= room:
                chosen[file.identity] = file
                room -= file.nbytes
        return chosen

    def _awaited(self) -> Iterator[FoundLora]:
        """The files that sets are still to be made of."""
        jobs = {job.job_id: job for job in self._jobs()}
        resident = self._resident()
        there: dict[object, bool] = {}
        begun = [job.job_id for job in jobs.values() if job.times.preparing]
        queued = [Waiting.of(job) for job in jobs.values() if not job.times.preparing]
        turns = [waiting.waiting_id for waiting in Turns().order(queued)]
        for job in map(jobs.__getitem__, [*begun, *turns]):
            work = job.work
            if not isinstance(work, LocalWork) or work.settled or not work.files:
                continue
            key = job.task.model, job.task.loras, tuple(file.identity for file in work.files)
            served = resident.get(job.task.model)
            if key not in there:
                there[key] = served is not None and _has_sets(served, job, work)
            if not there[key]:
                yield from (file for file in work.files if not _has_factors(served, file))

    def _missing(self) -> list[FoundLora]:
        done = self._reading | self._refused
        return [
            file
            for identity, file in self._wanted.items()
            if identity not in done and not self._parsed.holds(identity)
        ]

    # On the threads.

    def _read_next(self) -> None:
        """Read the first file that is wanted and not there."""
        with self._lock:
            self._submitted -= 1
            file = next(iter(self._missing()), None)
            if file is None:
                return
            self._reading.add(file.identity)
        was_read = self._read_ahead(file)
        with self._lock:
            self._reading.discard(file.identity)
            if file.identity in self._wanted:
                (self._read if was_read else self._refused).add(file.identity)

    def _read_ahead(self, file: FoundLora) -> bool:
        """Read a file, unless there is no memory for it; False if that came to nothing."""
        if file.nbytes > self._free_bytes():
            return False
        try:
            with self._supervisor.call(CallShape("prefetch")) as beat:

                def alive() -> None:
                    beat()
                    if file.identity not in self._wanted:
                        raise Unwanted

                file.read_ahead(alive)
        except Exception:  # whatever it is, the job will say it
            return False
        return True


def _has_sets(served: ServedModel, job: Job, work: LocalWork) -> bool:
    """Whether all files of a job are in sets that are there."""
    planned = phases(job.task)
    used = {at for phase in planned for at in phase.loras}
    return len(used) == len(work.files) and all(
        served.sets.holds(work.members(phase, job.task)) for phase in planned
    )


def _has_factors(served: ServedModel | None, file: FoundLora) -> bool:
    """Whether sets are multiplied from a file's factors on the device, which are there."""
    resident = None if served is None else served.resident
    return resident is not None and resident.placed(file.identity) is not None
