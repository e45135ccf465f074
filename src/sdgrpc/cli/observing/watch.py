"""Who watches a server as its settings ask for: metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from sdgrpc.api.calls.call import CallObserver
from sdgrpc.api.calls.notes import CallNotes
from sdgrpc.engine.base import Engine
from sdgrpc.engine.observing.observer import Observer
from sdgrpc.engine.observing.several import Observers
from sdgrpc.settings import Settings


@dataclass(frozen=True)
class Watch:
    """Who is told of calls and of jobs; `read_from` gives them the engine once there is one."""

    calls: Sequence[CallObserver]
    jobs: Observer
    read_from: Callable[[Engine], None]


@contextmanager
def watched(settings: Settings) -> Iterator[Watch]:
    """Watch for the block.

    Raises:
        SettingsError: the port for metrics cannot be taken.
        ModuleNotFoundError: what is asked for needs an extra that is not installed.

    """
    calls: list[CallObserver] = []
    jobs: list[Observer] = [CallNotes()]
    readers: list[Callable[[Engine], None]] = []
    with ExitStack() as stack:
        if settings.metrics is not None:
            from sdgrpc.metrics.metrics import Metrics

            metrics = Metrics(name for name, _ in settings.models)
            stack.enter_context(metrics.served(settings.metrics))
            calls.append(metrics.calls)
            jobs.append(metrics.jobs)
            readers.append(metrics.read_from)

        def read_from(engine: Engine) -> None:
            for reader in readers:
                reader(engine)

        yield Watch(calls, Observers(jobs), read_from)
