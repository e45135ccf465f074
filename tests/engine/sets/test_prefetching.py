"""LoRA files of jobs that wait, read before their turn."""

from __future__ import annotations

import asyncio
import logging
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from sdgrpc.domain import LoraRef
from sdgrpc.engine.job import Job, Unwanted
from sdgrpc.engine.sets.prefetching import Prefetching
from sdgrpc.engine.stream import EventStream
from sdgrpc.engine.supervision.supervisor import Supervisor
from sdgrpc.engine.work import LocalWork
from sdgrpc.errors import LoraMalformed
from sdgrpc.lora.store.contents import FoundLora
from sdgrpc.lora.store.library import LoraLibrary
from tests.engine.models.test_residency import Later
from tests.support.loras import LINEAR, kohya_file, to_file
from tests.support.tasks import task

NAMES = ("a", "b", "c", "d")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four files of one size, nearly all of it tensors."""
    for seed, name in enumerate(NAMES):
        to_file(tmp_path / f"{name}.safetensors", kohya_file(LINEAR, rank=64, seed=seed))
    return tmp_path


def hashed(folder: Path, **options) -> LoraLibrary:
    """A library that knows its files' hashes and has parsed none."""
    library = LoraLibrary([folder], **options)
    for entry in library.entries():
        library.hashes_of_entry(entry)
    return library


class Queue:
    """Jobs that wait for files, and a reader that works when it is told to."""

    def __init__(self, folder: Path, *, room_for: int = 8, **options) -> None:
        size = (folder / "a.safetensors").stat().st_size
        self.library = hashed(folder, cache_bytes=2 * room_for * size)
        self.identities = {name: self.file(name).identity for name in NAMES}
        self.jobs: list[Job] = []
        self.threads = Later()
        self.supervisor = Supervisor()
        self.ahead = Prefetching(
            self.library.parsed, lambda: self.jobs, dict, self.supervisor, threads=self.threads, **options
        )

    def file(self, name: str) -> FoundLora:
        return self.library.find(LoraRef(1.0, 1.0, name=name))

    def wait(self, *names: str, caller: str = "", files: tuple[FoundLora, ...] = ()) -> Job:
        """Queue a job with these files."""
        found = files or tuple(map(self.file, names))
        asked = replace(task(loras=tuple(LoraRef(1.0, 1.0, name=file.name) for file in found)), caller=caller)
        work = LocalWork(lambda: pytest.fail("not begun"), found, when_settled=self.ahead.look)
        job = Job(len(self.jobs), asked, EventStream(asyncio.new_event_loop()), work=work)
        self.jobs.append(job)
        self.ahead.look()
        return job

    def leave(self, job: Job) -> None:
        """Let a job end, as one that was cancelled does."""
        self.jobs.remove(job)
        assert job.work is not None
        job.work.close()

    def read(self) -> list[str]:
        """Do what the threads were given; return which files are parsed then."""
        while self.threads.waiting:
            self.threads.run()
        return [name for name, identity in self.identities.items() if self.library.parsed.holds(identity)]


def test_files_of_waiting_jobs_are_read_once(folder: Path, reads: list[str]) -> None:
    """Each file is read, whoever else names it; the jobs find it parsed."""
    queue = Queue(folder)
    queue.wait("a", "b")
    queue.wait("b", "c")
    assert queue.read() == ["a", "b", "c"]
    assert all(queue.ahead.has_read(queue.file(name)) for name in "abc")
    assert not queue.ahead.has_read(queue.file("d"))
    assert queue.file("b").adapter().modules
    assert reads == ["a", "b", "c"]


def test_what_was_parsed_already_was_not_read_ahead(folder: Path, reads: list[str]) -> None:
    """It is kept for the job all the same."""
    queue = Queue(folder)
    queue.file("a").adapter()
    queue.wait("a")
    assert queue.read() == ["a"]
    assert not queue.ahead.has_read(queue.file("a"))
    assert reads == ["a"]


def test_what_is_ahead_is_bounded(folder: Path) -> None:
    """Files beyond the room are read once a job before them has its set."""
    queue = Queue(folder, room_for=2)
    first = queue.wait("a")
    queue.wait("b", "c")
    assert queue.read() == ["a", "b"]
    assert isinstance(first.work, LocalWork)
    first.work.settle()
    assert queue.read() == ["a", "b", "c"]


def test_nothing_is_dropped_that_somebody_waits_for(folder: Path) -> None:
    """Whatever others read meanwhile; once nobody waits, a file goes as any other."""
    queue = Queue(folder, room_for=1)
    job = queue.wait("a")
    queue.read()
    for name in "bcd":
        queue.file(name).adapter()
    assert queue.read() == ["a", "d"]
    queue.leave(job)
    for name in "bcd":
        queue.file(name).adapter()
    assert queue.read() == ["c", "d"]


def test_callers_take_turns(folder: Path) -> None:
    """The file of a caller's first job comes before those of another's second."""
    queue = Queue(folder, room_for=2)
    queue.wait("a", caller="many")
    queue.wait("b", caller="many")
    queue.wait("c", caller="one")
    assert queue.read() == ["a", "c"]


def test_a_job_that_left_reads_nothing(folder: Path, reads: list[str]) -> None:
    """It was cancelled before a thread came to its file."""
    queue = Queue(folder)
    queue.leave(queue.wait("a"))
    queue.wait("b")
    assert queue.read() == ["b"]
    assert reads == ["b"]


def test_a_read_ends_once_nobody_waits(folder: Path) -> None:
    """The next piece is not read any more, and the file can be read again later."""
    queue = Queue(folder)
    stopped: list[bool] = []

    def read(alive) -> None:
        alive()
        queue.leave(job)
        with pytest.raises(Unwanted):
            alive()
        stopped.append(True)
        raise Unwanted

    job = queue.wait(files=(replace(queue.file("a"), read_ahead=read),))
    assert not queue.read()
    assert stopped == [True]
    queue.wait("a")
    assert queue.read() == ["a"]


def test_a_broken_file_is_its_jobs_to_tell(folder: Path, reads: list[str], caplog) -> None:
    """It is tried once, nothing is logged, the others are read, and the job gets the error as ever."""
    queue = Queue(folder)
    bad = queue.file("a")
    (folder / "a.safetensors").write_bytes(b"no LoRA")
    with caplog.at_level(logging.DEBUG):
        queue.wait(files=(bad,))
        queue.wait("b")
        assert queue.read() == ["b"]
        queue.wait("c")
        queue.read()
    assert reads == ["a", "b", "c"]
    assert not [record for record in caplog.records if record.name.startswith("sdgrpc")]
    assert not queue.supervisor.failed
    with pytest.raises(LoraMalformed, match="'a'"):
        bad.adapter()


@pytest.mark.parametrize("options", [{"on": False}, {"free_bytes": lambda: 0.0}], ids=["off", "no memory"])
def test_nothing_is_read(folder: Path, reads: list[str], options) -> None:
    """Where the operator does not want it, or there is no memory left."""
    queue = Queue(folder, **options)
    queue.wait("a")
    assert not queue.read()
    assert not reads


def test_nothing_is_read_after_the_end(folder: Path, reads: list[str]) -> None:
    """What a thread was given already included."""
    queue = Queue(folder)
    queue.wait("a")
    queue.ahead.close()
    queue.wait("b")
    assert not queue.read()
    assert not reads


def test_a_read_that_hangs_is_seen(folder: Path) -> None:
    """A piece that does not come ends the engine, as with every other thread."""
    queue = Queue(folder)
    supervisor, failed = Supervisor(hang_timeout=0.1), threading.Event()
    supervisor.on_failure(failed.set)
    supervisor.start()
    ahead = Prefetching(queue.library.parsed, lambda: queue.jobs, dict, supervisor)
    queue.wait(files=(replace(queue.file("a"), read_ahead=lambda _alive: failed.wait(60)),))
    ahead.look()
    assert failed.wait(60)
    ahead.close()
    supervisor.close()
