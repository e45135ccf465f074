"""LoRAs of every algorithm that the embedded model has one of, over a real port: seen in the pictures."""

from __future__ import annotations

import numpy as np
import pytest

from sdgrpc.client import Client, Result
from tools.tiny_model.classifier import border
from tools.tiny_model.styles import darkness, ink, striped

PROMPT = "a large orange star on a green background"
SEED = 1

CASES = {"stripes": ("loha", striped), "night": ("lokr", darkness), "outline": ("dora", ink)}


@pytest.fixture(scope="module")
def client(server):
    """A client of the server with the embedded model."""
    with Client(server.target) as connected:
        yield connected


def draw(client: Client, *loras: str) -> tuple[np.ndarray, Result]:
    """One picture `(128, 128, 3)` uint8 with these LoRAs, and all that was said about it."""
    result = client.generate(PROMPT, loras=list(loras), seed=SEED).result()
    return np.asarray(result.images[0].open().convert("RGB")), result


@pytest.mark.parametrize("name", CASES)
def test_each_alone(client: Client, name: str) -> None:
    """The report names the algorithm, and the effect rises with the strength, from none at all at 0."""
    algorithm, measure = CASES[name]
    plain, _ = draw(client)
    none, half, full = (draw(client, f"{name}:{strength}") for strength in (0, 0.75, 1))
    assert np.array_equal(none[0], plain)
    (report,) = full[1].prepared.loras
    assert report.algorithms == (algorithm,)
    assert (report.unmatched_tensors, report.warnings) == (0, ())
    assert report.relative_norm > 0
    before, between, after = (measure(picture) for picture in (plain, half[0], full[0]))
    assert before < between < after
    assert after - before > 0.1


@pytest.mark.parametrize("name", CASES)
def test_each_stacked_with_an_additive_one(client: Client, name: str) -> None:
    """Beside a plain LoRA both are seen, and the order in which they are named changes nothing."""
    algorithm, measure = CASES[name]
    additive = "postcard:1" if name == "outline" else "flower:0.5"
    plain, _ = draw(client, additive)
    both, result = draw(client, additive, f"{name}:1")
    turned, _ = draw(client, f"{name}:1", additive)
    assert np.array_equal(both, turned)
    assert [report.algorithms for report in result.prepared.loras] == [("locon", "lora"), (algorithm,)]
    assert measure(both) > measure(plain) + 0.05
    if name == "outline":
        without, _ = draw(client, f"{name}:1")
        assert border(both).mean() > border(without).mean() + 20
