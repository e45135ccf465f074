"""The dashboard for Grafana: made by code, fresh, and about metrics that there are."""

from __future__ import annotations

import json
import re

import pytest
from prometheus_client import generate_latest

from sdgrpc.metrics.metrics import Metrics
from tools import dashboard

MADE = json.loads(dashboard.FILE.read_text())


PANELS = [panel for panel in MADE["panels"] if panel["type"] != "row"]


def test_it_is_fresh() -> None:
    """What is committed is what the code makes."""
    assert dashboard.FILE.read_text("utf-8") == dashboard.build()


def test_every_metric_is_shown_and_every_shown_one_exists() -> None:
    """Queries name a server's metrics, and none is left out but what gateways read."""
    text = generate_latest(Metrics(["a"]).registry).decode()
    there = set(re.findall(r"^(?:# TYPE )?(sdgrpc_\w+)", text, re.MULTILINE))
    asked = {
        name
        for panel in PANELS
        for target in panel["targets"]
        for name in re.findall(r"\bsdgrpc_\w+", target["expr"])
    }
    assert not asked - there
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in there}
    assert families - {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked} == {
        "sdgrpc_lora_requests_info"
    }


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_panels_say_what_they_show(panel) -> None:
    """A title, a sentence, a unit, and queries that Grafana can tell apart."""
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    names = [target["refId"] for target in panel["targets"]]
    assert names == list("ABCDEF"[: len(names)])


def test_panels_lie_beside_each_other() -> None:
    """Nothing lies upon anything else, or beyond the edge."""
    taken: set[tuple[int, int]] = set()
    for panel in MADE["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
