"""How busy a server is, on one screen: jobs, rows a call, the queue, and what is in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sdgrpc.client import ResidentLoraSet, ServerStatus
from sdgrpc.terminal.console import MIB
from sdgrpc.terminal.text import printable

BARS = " ▁▂▃▄▅▆▇█"
HISTORY = 120
"""Reports that are remembered."""
ABOVE = 8
"""Lines above the sets."""


class Load:
    """The newest report, and how many steps a second the last ones told of. Draws itself for any width."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._report: ServerStatus | None = None
        self._problem = "connecting"
        self._rates: deque[float] = deque(maxlen=HISTORY)
        self._names: Mapping[str, str] = {}

    def show(self, report: ServerStatus, names: Mapping[str, str]) -> None:
        """Show a report; `names` are those of LoRA files by their hash."""
        self._report, self._names, self._problem = report, names, ""
        self._rates.append(report.steps_per_second)

    def fail(self, problem: str) -> None:
        """Say why there is no newer report; the last one stays."""
        self._problem = problem

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw at most as many lines as there are, each as wide as the terminal at most."""
        yield self._head()
        if (report := self._report) is None:
            return
        width = max(options.max_width - 12, 8)
        rows = Table.grid(padding=(0, 1), expand=True)
        rows.add_column(width=7, style="dim")
        rows.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        rows.add_row("jobs", _counted(f"{report.running} running, {report.jobs_finished} finished"))
        for one in report.replicas:
            where = f"{one.node} {one.state}" if one.node else one.state
            busy = f"{one.running} running, {one.queued} waiting, {one.lora_sets} sets, {where}"
            rows.add_row("", _counted(f"{printable(one.name)}: {printable(busy)}"))
        rows.add_row("queue", _share(report.queued, report.queue_size, "waiting", width))
        rows.add_row("", f"a job sent now waits {report.estimated_wait_seconds:.1f} s")
        rows.add_row(
            "calls", f"{report.rows_per_call:.1f} rows a call, {report.steps_per_second:.1f} steps/s"
        )
        rows.add_row("", Text(sparkline(list(self._rates), width), "cyan", no_wrap=True))
        models = (f"{printable(name)} {size / MIB:.0f} MiB" for name, size in report.resident_models.items())
        rows.add_row("models", ", ".join(models) or "none in memory")
        used, most = report.lora_set_bytes / MIB, report.lora_set_budget_bytes / MIB
        rows.add_row("sets", _share(round(used), round(most), "MiB a model", width))
        yield rows
        yield self._sets(
            report, max((options.height or console.height) - ABOVE - len(report.replicas) - 2, 3)
        )

    def _head(self) -> Text:
        state = Text("no report", "dim") if self._report is None else _state(self._report)
        problem = Text(f"  {printable(self._problem)}" if self._problem else "", "red")
        return Text.assemble(
            (printable(self._target), "bold"), "  ", state, problem, no_wrap=True, overflow="ellipsis"
        )

    def _sets(self, report: ServerStatus, lines: int) -> Table:
        table = Table(box=None, expand=True, padding=(0, 1), show_edge=False, header_style="dim")
        table.add_column("LoRA set", ratio=1, no_wrap=True, overflow="ellipsis")
        table.add_column("model", no_wrap=True, overflow="ellipsis", max_width=14)
        table.add_column("MiB", justify="right", no_wrap=True)
        table.add_column("used", no_wrap=True)
        ordered = sorted(report.lora_sets, key=lambda one: not one.in_use)
        for one in ordered[:lines]:
            used = "now" if one.in_use else ""
            size = f"{one.size_bytes / MIB:.0f}"
            table.add_row(self._members(one), printable(one.model), size, used)
        if len(ordered) > lines:
            table.add_row(f"and {len(ordered) - lines} more", "", "", "")
        return table

    def _members(self, one: ResidentLoraSet) -> str:
        """`postcard:0.8 + sepia:0.5`; a file that the catalog does not list by the start of its hash."""
        named = (
            f"{printable(self._names.get(lora.sha256) or lora.sha256[:8])}:{lora.strength:g}"
            for lora in one.loras
        )
        return " + ".join(named)


def sparkline(values: list[float], width: int) -> str:
    """The last values as bars of one line, the highest of them full."""
    shown = values[-width:]
    most = max(shown, default=0.0) or 1.0
    return "".join(BARS[round(value / most * (len(BARS) - 1))] for value in shown)


def _state(report: ServerStatus) -> Text:
    return Text("ready", "green") if report.ready else Text("not ready", "yellow")


def _counted(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")


def _share(count: int, most: int, what: str, width: int) -> Table:
    """A bar of how much of something is taken, and the numbers."""
    row = Table.grid(padding=(0, 1))
    row.add_column(width=max(width // 3, 6))
    row.add_column(no_wrap=True)
    row.add_row(ProgressBar(total=max(most, 1), completed=min(count, most)), f"{count} of {most} {what}")
    return row
