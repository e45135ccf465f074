"""Write deploy/grafana/sdgrpc.json, or with `--check` prove that it is fresh.

The panels stand here, by Grafana's own SDK; the queries ask for the metrics of docs/operating.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from string import ascii_uppercase

from grafana_foundation_sdk.builders.dashboard import (
    Dashboard,
    DatasourceVariable,
    QueryVariable,
    Row,
    ThresholdsConfig,
)
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.timeseries import Panel as Lines
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import GraphGradientMode
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    VariableRefresh,
)

FILE = Path(__file__).resolve().parent.parent / "deploy/grafana/sdgrpc.json"
SOURCE = DataSourceRef(type_val="prometheus", uid="${source}")
HERE = 'instance=~"$instance"'
WINDOW = "[$__rate_interval]"

Query = tuple[str, str]
"""An expression of PromQL, and the legend of its series."""


def rate(metric: str, by: str, **labels: str) -> str:
    """What a counter grew by in a second, summed by labels; other labels are matched as patterns."""
    matched = "".join(f', {name}=~"{value}"' for name, value in labels.items())
    return f"sum by ({by}) (rate({metric}{{{HERE}{matched}}}{WINDOW}))"


def quantile(share: float, histogram: str, by: str) -> str:
    """A quantile of what a histogram saw."""
    return f"histogram_quantile({share}, {rate(f'{histogram}_bucket', f'le, {by}')})"


def mean(histogram: str, by: str) -> str:
    """The mean of what a histogram saw."""
    return f"{rate(f'{histogram}_sum', by)} / {rate(f'{histogram}_count', by)}"


def lines(title: str, unit: str, text: str, queries: Sequence[Query]) -> Lines:
    """A panel of lines over time."""
    panel = Lines().title(title).description(text).unit(unit).datasource(SOURCE).min(0).span(8).height(8)
    panel = panel.fill_opacity(12).gradient_mode(GraphGradientMode.OPACITY)
    for name, (expression, legend) in zip(ascii_uppercase, queries, strict=False):
        panel = panel.with_target(Dataquery().ref_id(name).expr(expression).legend_format(legend))
    return panel


def number(title: str, unit: str, text: str, expression: str, red_from: float | None = None) -> Stat:
    """A panel of one number an instance, red from a value on."""
    panel = Stat().title(title).description(text).unit(unit).datasource(SOURCE).span(4).height(4)
    steps = [Threshold(value=None, color="green")]
    if red_from is not None:
        steps.append(Threshold(value=red_from, color="red"))
    thresholds = ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)
    target = Dataquery().ref_id("A").expr(expression).legend_format("{{instance}}").instant()
    return panel.thresholds(thresholds).with_target(target)


def now(metric: str, by: str = "instance") -> str:
    """A gauge as it is."""
    return f"sum by ({by}) ({metric}{{{HERE}}})"


NUMBERS = (
    number(
        "Not ready",
        "short",
        "Servers that take no jobs.",
        f"count(sdgrpc_ready{{{HERE}}} == 0) or vector(0)",
        1,
    ),
    number("Running", "short", "Jobs that have begun.", now("sdgrpc_jobs_running")),
    number("Waiting", "short", "Jobs that have not.", now("sdgrpc_jobs_waiting")),
    number(
        "Engine silent",
        "s",
        "How long ago a working thread last gave a sign of life; SIGUSR1 writes every stack.",
        f"max by (instance) (sdgrpc_engine_heartbeat_seconds{{{HERE}}})",
        45,
    ),
    number("LoRA sets", "short", "Sets in memory.", now("sdgrpc_lora_sets_resident")),
    number("of bytes", "bytes", "What they take.", now("sdgrpc_lora_sets_bytes")),
)

ROWS: Sequence[tuple[str, Sequence[Lines]]] = (
    (
        "Requests",
        (
            lines(
                "Calls by status",
                "reqps",
                "Calls that ended, by gRPC's status.",
                [(rate("sdgrpc_requests_total", "code"), "{{code}}")],
            ),
            lines(
                "Refused and failed",
                "reqps",
                "By ErrorInfo's reason.",
                [(rate("sdgrpc_requests_total", "reason", reason=".+"), "{{reason}}")],
            ),
            lines(
                "How long they took",
                "s",
                "From the first header to the end, by method.",
                [
                    (quantile(0.5, "sdgrpc_request_seconds", "method"), "{{method}} half"),
                    (quantile(0.95, "sdgrpc_request_seconds", "method"), "{{method}} 95 %"),
                ],
            ),
        ),
    ),
    (
        "Where time goes",
        (
            lines(
                "Stages of a job",
                "s",
                "The mean of each: waiting, LoRA files read and fused, prompts, steps, decoding, sending.",
                [(mean("sdgrpc_stage_seconds", "stage"), "{{stage}}")],
            ),
            lines(
                "A UNet call",
                "s",
                "What one call takes, which advances all jobs that share it.",
                [
                    (quantile(0.5, "sdgrpc_step_seconds", "model"), "{{model}} half"),
                    (quantile(0.95, "sdgrpc_step_seconds", "model"), "{{model}} 95 %"),
                ],
            ),
            lines(
                "Rows a call",
                "short",
                "How many rows share a call; guided jobs have two each.",
                [(mean("sdgrpc_rows_per_call", "model"), "{{model}}")],
            ),
        ),
    ),
    (
        "Drawing",
        (
            lines(
                "Jobs",
                "short",
                "Begun, waiting, and how many may wait.",
                [
                    (now("sdgrpc_jobs_running"), "running {{instance}}"),
                    (now("sdgrpc_jobs_waiting"), "waiting {{instance}}"),
                    (now("sdgrpc_queue_size"), "may wait {{instance}}"),
                ],
            ),
            lines(
                "Pictures and steps",
                "cps",
                "In a second, by model.",
                [
                    (rate("sdgrpc_images_total", "model"), "pictures {{model}}"),
                    (rate("sdgrpc_steps_total", "model"), "steps {{model}}"),
                ],
            ),
            lines(
                "Pixels and jobs that ended well",
                "cps",
                "In a second.",
                [
                    (rate("sdgrpc_image_pixels_total", "model"), "pixels {{model}}"),
                    (rate("sdgrpc_jobs_finished_total", "instance"), "jobs {{instance}}"),
                ],
            ),
        ),
    ),
    (
        "LoRA",
        (
            lines(
                "Sets found and fused",
                "cps",
                "Sets that were in memory, had to be fused, or made room, and files read ahead.",
                [
                    (rate("sdgrpc_lora_sets_hits_total", "instance"), "found {{instance}}"),
                    (rate("sdgrpc_lora_sets_misses_total", "instance"), "fused {{instance}}"),
                    (rate("sdgrpc_lora_sets_evictions_total", "instance"), "put out {{instance}}"),
                    (rate("sdgrpc_prefetched_lora_files_total", "model"), "read ahead {{model}}"),
                ],
            ),
            lines(
                "Files that jobs name",
                "cps",
                "The ten that are named most.",
                [(f"topk(10, {rate('sdgrpc_lora_jobs_total', 'lora')})", "{{lora}}")],
            ),
            lines(
                "Uploads",
                "Bps",
                "What comes of LoRA files.",
                [(rate("sdgrpc_upload_bytes_total", "instance"), "{{instance}}")],
            ),
        ),
    ),
    (
        "Trouble",
        (
            lines(
                "Out of memory",
                "cps",
                "Times that the device's memory did not suffice.",
                [(rate("sdgrpc_out_of_memory_total", "model"), "{{model}}")],
            ),
            lines(
                "Previews dropped",
                "cps",
                "Previews that no reader came for in time.",
                [(rate("sdgrpc_previews_dropped_total", "model"), "{{model}}")],
            ),
            lines(
                "Server's own failures",
                "reqps",
                "Calls that ended by a fault of the server's.",
                [(rate("sdgrpc_requests_total", "method", code="INTERNAL|UNKNOWN|DATA_LOSS"), "{{method}}")],
            ),
        ),
    ),
)


def build() -> str:
    """Return the dashboard as Grafana imports it."""
    instance = QueryVariable("instance").label("Server").datasource(SOURCE).multi(True).include_all(True)
    instance = instance.query("label_values(sdgrpc_ready, instance)").refresh(
        VariableRefresh.ON_TIME_RANGE_CHANGED
    )
    dashboard = (
        Dashboard("sdgrpc")
        .uid("sdgrpc")
        .tags(["sdgrpc", "generated"])
        .refresh("15s")
        .time("now-1h", "now")
        .with_variable(DatasourceVariable("source").label("Prometheus").type("prometheus"))
        .with_variable(instance)
    )
    for one in NUMBERS:
        dashboard = dashboard.with_panel(one)
    for title, panels in ROWS:
        dashboard = dashboard.with_row(Row(title))
        for panel in panels:
            dashboard = dashboard.with_panel(panel)
    return JSONEncoder(sort_keys=True, indent=2).encode(dashboard.build()) + "\n"


def main() -> int:
    """Run as a command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="fail where the file is not what would be written"
    )
    made = build()
    if not parser.parse_args().check:
        FILE.parent.mkdir(exist_ok=True)
        FILE.write_text(made, "utf-8")
        return 0
    if FILE.exists() and FILE.read_text("utf-8") == made:
        return 0
    print(f"{FILE.name} is not what tools/dashboard.py makes: run make gen", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
