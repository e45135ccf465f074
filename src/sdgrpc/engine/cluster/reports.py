"""What the replicas last said of themselves, and the sum of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from sdgrpc.domain import EngineStatus, ModelState
from sdgrpc.engine.cluster.replica import Report
from sdgrpc.engine.cluster.sums import counted, models_of, replica_status, summed


class Reports:
    """Keeps the latest report of each replica, and what those that are gone had counted.

    Written on the server's event loop, read from any thread.
    """

    def __init__(self) -> None:
        self._reports: dict[str, Report] = {}
        self._past = summed([])
        self._states: Sequence[ModelState] = ()

    def __contains__(self, name: str) -> bool:
        return name in self._reports

    def note(self, name: str, report: Report) -> None:
        """Keep a report in place of the one before."""
        self._reports[name] = report
        self._states = models_of([each.states for each in self._reports.values()])

    def forget(self, name: str) -> None:
        """Drop a replica's report, but for its counts, which never fall; does nothing without one."""
        if (report := self._reports.pop(name, None)) is not None:
            self._past = counted(self._past, report.status)

    def on_node(self, node: str) -> Collection[str]:
        """Return the replicas whose machine has that address."""
        return [name for name, report in self._reports.items() if report.node == node]

    def model_states(self) -> Sequence[ModelState]:
        """Tell of each model whether one replica has it in memory."""
        return self._states

    def status(self, replicas: Mapping[str, bool]) -> EngineStatus:
        """Return the sum, and each replica's own state; the mapping says of each whether it leaves."""
        total = summed([report.status for report in list(self._reports.values())])
        each = tuple(
            replica_status(name, self._reports.get(name), draining=draining)
            for name, draining in replicas.items()
        )
        return replace(counted(total, self._past), replicas=each)
