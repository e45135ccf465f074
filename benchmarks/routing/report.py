"""The tables and the plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Rows = Sequence[Mapping[str, Any]]

COLUMNS = {
    "hit_rate": ("hits", "{:.0%}"),
    "mean_wait_seconds": ("mean wait, s", "{:.2f}"),
    "p95_wait_seconds": ("p95 wait, s", "{:.2f}"),
    "imbalance": ("most / mean jobs", "{:.1f}"),
    "moved_by_join": ("moved by a join", "{:.1%}"),
    "moved_by_death": ("moved by a death", "{:.1%}"),
}
PLOTTED = ("hit_rate", "mean_wait_seconds", "p95_wait_seconds", "imbalance")


def table(rows: Rows) -> str:
    """Return a table in Markdown."""
    head = ["replicas", "rule", *(name for name, _ in COLUMNS.values())]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        values = ["" if row[key] is None else form.format(row[key]) for key, (_, form) in COLUMNS.items()]
        lines.append([str(row["replicas"]), row["rule"], *values])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def plot(rows: Rows, path: Path) -> None:
    """Draw hits, waits and imbalance over the number of replicas, a line a rule."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "sdgrpc"  # the same file each time
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(PLOTTED), figsize=(13, 3.6), layout="constrained")
    names = list(dict.fromkeys(row["rule"] for row in rows))
    for axis, key in zip(axes, PLOTTED, strict=True):
        for name in names:
            mine = [row for row in rows if row["rule"] == name]
            style = "o-" if name.startswith("router") else "s--"
            axis.plot([row["replicas"] for row in mine], [row[key] for row in mine], style, label=name, ms=4)
        axis.set(xscale="log", xlabel="replicas", title=COLUMNS[key][0])
        if key != "hit_rate":
            axis.set_yscale("log")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize="small")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
