"""The table: what each side took, and in brackets how many times what ours did."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.peers.measures import Record

GIB = 1 << 30
ROWS = {
    "load": "load_seconds",
    "first picture": "first_picture_seconds",
    "a step": "step_seconds",
    "a step with one LoRA": "step_1_lora_seconds",
    "a step with three LoRAs": "step_3_loras_seconds",
    "one step, the same set": "same_set_seconds",
    "one step, a new set": "new_set_seconds",
    "one step, a known set": "known_set_seconds",
    "one step, another strength": "strength_seconds",
    "8 clients, a set each": "clients_seconds",
    "trace: of the processor, in all": "trace_processor_seconds",
    "trace: mean latency": "trace_mean_seconds",
    "trace: 95th percentile": "trace_p95_seconds",
    "memory, at most": "memory_bytes",
}


def table(found: Mapping[str, Record], *, processor: bool = False) -> str:
    """A row for each measure, a column for each side; a dash where a side has none.

    With `processor` seconds are the processor's, of all cores.
    """
    lines = [f"| | {' | '.join(found)} |", f"|{'---|' * (len(found) + 1)}"]
    ours = found.get("ours", {})
    for row, clock in ROWS.items():
        told = clock.startswith("trace") or not processor
        key = clock if told else clock.replace("_seconds", "_processor_seconds")
        cells = (cell(key, record.get(key), ours.get(key)) for record in found.values())
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(key: str, value: float | None, ours: float | None) -> str:
    """A value with its unit, and its ratio to ours."""
    if value is None:
        return "-"
    text = f"{value / GIB:.1f} GiB" if key.endswith("bytes") else f"{value:.3g} s"
    return text if not ours or value == ours else f"{text} ({value / ours:.2f})"
