"""What `benchmarks.lora_sets` prints of each measurement."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Row = dict[str, Any]


def miss(row: Row) -> str:
    """The cost of a set that is not there."""
    median = row["median"]
    return (
        f"miss, {row['bytes'] / 1e6:.0f} MB of weights: files to ready {median['ours']:.3f} s, "
        f"diffusers {median['diffusers']:.3f} s: {row['diffusers_over_ours']:.1f} times faster\n"
        f"  fusing {median['fusing']:.3f} s, copying the same bytes {median['copy']:.3f} s: "
        f"{row['fusing_over_copy']:.2f} times\n"
        f"  another strength of one member {median['strength']:.3f} s"
    )


def hit(row: Row) -> str:
    """The cost of a set that is there."""
    median = row["median"]
    return (
        f"hit: {median['ours'] * 1e3:.2f} ms, diffusers' unfuse and fuse {median['diffusers']:.3f} s: "
        f"{row['diffusers_over_ours']:.0f} times faster"
    )


def step(row: Row) -> str:
    """The cost of a step."""
    return (
        f"step: base {row['median']['base']:.3f} s, fused {row['fused_over_base']:.3f} of it, "
        f"diffusers unfused {row['unfused_over_base']:.3f}"
    )


def memory(row: Row) -> str:
    """What sets hold."""
    return (
        f"memory: a set holds {row['set_over_weights']:.3f} of its weights' bytes; "
        f"{row['sets']} sets in turn under a budget of two: "
        f"{row['growth_mib']:+.0f} MiB after the first tenth"
    )


def hidden(row: Row) -> str:
    """The steps of one job while another's set is fused, drawn over time."""
    end = max(event["end"] for event in row["events"])
    lines = [
        f"hidden: fused in {row['fuse_seconds']:.3f} s beside {row['steps_beside']} steps of another job, "
        f"the longest {row['longest_step']:.3f} s"
    ]
    for event in row["events"]:
        begin, stop = (int(60 * event[edge] / end) for edge in ("start", "end"))
        lines.append(f"  {event['what']:<5}" + " " * begin + "#" * max(1, stop - begin))
    return "\n".join(lines)


LINES: dict[str, Callable[[Row], str]] = {
    "single": miss,
    "stack": miss,
    "hit": hit,
    "step": step,
    "hidden": hidden,
    "memory": memory,
}
