"""The files of a job's LoRAs, found before it is queued, or beside its first steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from contextlib import ExitStack
from functools import partial

from sdgrpc.domain import Task
from sdgrpc.domain.phases import late, phases
from sdgrpc.lora.store.contents import FoundLora
from sdgrpc.lora.store.library import LoraLibrary

Run = Callable[[Callable[[], Sequence[FoundLora]]], Sequence[FoundLora]]


class Finding:
    """Finds the files of one task in a thread, and keeps uploads among them until `close`.

    `run` runs a function as the engine's threads do. A task begins without its files where it `may_be_late`,
    by its `late_start`, and `is_late`, since one has never been read.
    """

    def __init__(self, task: Task, library: LoraLibrary) -> None:
        self._task, self._library = task, library
        self._kept = ExitStack()
        self.files: Future[Sequence[FoundLora]] = Future()
        self.files.set_result(())

    def begin(self, threads: Executor, run: Run) -> None:
        """Begin to look for the files, if there are any."""
        if self._task.loras:
            self.files = threads.submit(run, self._find)

    @property
    def may_be_late(self) -> bool:
        """Whether the task would begin without files that are not there."""
        return late(self._task, planned := phases(self._task)) != planned

    def is_late(self) -> bool:
        """Tell whether files of a task are still to be read; blocks while folders are searched."""
        return not all(map(self._library.is_known, self._task.loras))

    def _find(self) -> Sequence[FoundLora]:
        files = self._library.find_all(self._task.loras)
        self._kept.enter_context(self._library.in_use(files))
        return files

    def close(self) -> None:
        """Let go of the files, once they are found."""
        self.files.add_done_callback(partial(_close, self._kept))


def _close(kept: ExitStack, _files: object) -> None:
    kept.close()
