"""What the soak found, as tables and as numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from rich.table import Table

from benchmarks.soak.calls import FINE

GROWTH_MIB = 64.0
"""By how much the memory may grow from the half of the calls to the end, and still count as flat."""
GROWTH_FILES = 8
WARM_CALLS = 1000
"""In fewer calls than that a server still grows to its usual size, which is no leak."""


class Sample(NamedTuple):
    """The server after so many calls."""

    calls: int
    rss_mib: float
    files: int
    threads: int


@dataclass
class Report:
    """Everything that was measured."""

    calls: int
    ends: Counter[tuple[str, str]]
    samples: list[Sample] = field(default_factory=list)
    seconds: float = 0.0
    pictures: int = 0
    wrong_pictures: int = 0
    left_jobs: int = 0
    left_leases: int = 0
    exit_status: int | None = None
    fatal_lines: int = 0

    @property
    def unexpected_ends(self) -> int:
        """Calls that ended as no call should."""
        return sum(count for (_, end), count in self.ends.items() if end not in FINE)

    @property
    def growth(self) -> Sample:
        """What the server had more at the end than after half of the calls."""
        half = next((one for one in self.samples if one.calls >= self.calls // 2), self.samples[0])
        last = self.samples[-1]
        return Sample(
            last.calls - half.calls,
            last.rss_mib - half.rss_mib,
            last.files - half.files,
            last.threads - half.threads,
        )

    def figures(self) -> dict[str, object]:
        """All numbers, for a file."""
        return {
            "calls": self.calls,
            "seconds": round(self.seconds, 1),
            "ends": {f"{action}: {end}": count for (action, end), count in sorted(self.ends.items())},
            "pictures": self.pictures,
            **dict(self.rows()),
            "samples": [one._asdict() for one in self.samples],
        }

    def rows(self) -> Iterator[tuple[str, float]]:
        """What should be nothing."""
        growth = self.growth
        yield "wrong pictures", self.wrong_pictures
        yield "unexpected ends of calls", self.unexpected_ends
        yield "crashes", int(self.exit_status != 0) + self.fatal_lines
        yield "jobs left", self.left_jobs
        yield "LoRA sets left in use", self.left_leases
        yield "MiB more than after half of the calls", round(growth.rss_mib, 1)
        yield "files and connections more", growth.files
        yield "threads more", growth.threads

    def faults(self) -> list[str]:
        """What is more than nothing, beyond what counts as flat."""
        if self.calls < WARM_CALLS:
            return [name for name, value in list(self.rows())[:-3] if value]
        bounds = {
            "MiB more than after half of the calls": GROWTH_MIB,
            "files and connections more": GROWTH_FILES,
            "threads more": GROWTH_FILES,
        }
        return [name for name, value in self.rows() if value > bounds.get(name, 0)]


def tables(report: Report) -> Iterator[Table]:
    """How the calls ended, the server meanwhile, and what should be nothing."""
    ends = Table(
        "what clients did", "how it ended", "calls", title=f"{report.calls} calls, {report.seconds:.0f} s"
    )
    for (action, end), count in sorted(report.ends.items()):
        ends.add_row(action, end if end in FINE else f"[red]{end}", str(count))
    yield ends
    server = Table("calls", "resident MiB", "open files", "threads", title="the server")
    for sample in report.samples:
        server.add_row(str(sample.calls), f"{sample.rss_mib:.0f}", str(sample.files), str(sample.threads))
    yield server
    result = Table("should be nothing", "", title=f"{report.pictures} pictures compared")
    faults = report.faults()
    for name, value in report.rows():
        result.add_row(name, f"[red]{value}" if name in faults else str(value))
    yield result
