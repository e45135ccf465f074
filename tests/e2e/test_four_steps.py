"""The embedded model's LCM LoRA over a real port: four steps without guidance draw what is asked."""

from __future__ import annotations

import numpy as np
import pytest

from sdgrpc.client import Client, Result
from sdgrpc.domain import Scheduler
from tools.tiny_model.classifier import background_of, fill_of
from tools.tiny_model.drawing import BACKGROUNDS, FILLS, RADII, SHAPES, mask, outline

ASKED = (
    ("circle", "red", "blue"),
    ("square", "yellow", "gray"),
    ("triangle", "green", "white"),
    ("star", "orange", "green"),
    ("heart", "pink", "black"),
    ("cross", "purple", "yellow"),
)
SAMPLING = {"steps": 4, "guidance_scale": 1.0, "scheduler": Scheduler.LCM}


@pytest.fixture(scope="module")
def client(server):
    """A client of the server with the embedded model."""
    with Client(server.target) as connected:
        yield connected


def shape_of(picture: np.ndarray, fill: str, background: str) -> str:
    """The shape whose drawing covers best what is nearer to the fill than to the background."""
    distances = [
        np.linalg.norm(picture - np.asarray(colour, np.float32), axis=-1)
        for colour in (FILLS[fill], BACKGROUNDS[background])
    ]
    filled = distances[0] < distances[1]

    def likeness(shape: str) -> float:
        drawn = [mask(outline(shape), scale * r) > 0.5 for r in RADII.values() for scale in (0.9, 1.0, 1.1)]
        return max((filled & each).sum() / (filled | each).sum() for each in drawn)

    return max(SHAPES, key=likeness)


def draw(client: Client, *loras: str) -> tuple[list[tuple[str, str, str]], list[Result]]:
    """What is seen in a picture of each prompt in four steps, and all that was said about them."""
    results = []
    for seed, (shape, fill, background) in enumerate(ASKED):
        prompt = f"a large {fill} {shape} on a {background} background"
        results.append(client.generate(prompt, loras=list(loras), seed=seed, **SAMPLING).result())
    return [seen_in(np.asarray(result.images[0].open().convert("RGB"))) for result in results], results


def seen_in(picture: np.ndarray) -> tuple[str, str, str]:
    """Shape, fill and background; no shape where both have one colour."""
    fill, background = fill_of(picture), background_of(picture)
    return shape_of(picture, fill, background) if fill != background else "", fill, background


def distance_from_pink(client: Client, *loras: str) -> float:
    """How far the middle is from pink, on average, where the base alone mixes in the background."""
    options = {**SAMPLING, "loras": list(loras), "seed": 0, "image_count": 8}
    images = client.generate("an icon of pink triangle on blue, big, flat design", **options).images()
    middles = [np.asarray(each.open().convert("RGB"))[56:72, 56:72].reshape(-1, 3) for each in images]
    return float(np.mean([np.linalg.norm(np.median(each, axis=0) - FILLS["pink"]) for each in middles]))


def test_four_steps_draw_what_the_prompt_says(client: Client) -> None:
    """Shape, fill and background of all six prompts; the file fits the request and all of it is used."""
    seen, results = draw(client, "lcm:1")
    assert seen == list(ASKED)
    for result in results:
        (report,) = result.prepared.loras
        assert (report.unmatched_tensors, report.warnings) == (0, ())
        assert result.accepted.step_count == SAMPLING["steps"]


def test_the_lora_has_learned_guidance(client: Client) -> None:
    """A pair of words that the base has never seen: without guidance it draws grey, with the LoRA pink."""
    assert distance_from_pink(client, "lcm:1") < 0.6 * distance_from_pink(client)


def test_the_catalog_says_what_it_was_made_for(client: Client) -> None:
    """Four steps, no guidance, LCM, on a model that predicts the velocity as the embedded one does."""
    found = client.get_lora("lcm").recommended_sampling
    assert found is not None
    assert (found.steps, found.guidance_scale, found.scheduler) == (4, 1.0, Scheduler.LCM)
    assert found.prediction_type == "v_prediction"
