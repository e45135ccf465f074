"""What the demonstration asks for and writes, with a scripted server."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from sdgrpc.client import Client
from sdgrpc.demo.few_steps import draw_pairs
from sdgrpc.demo.run import draw_scenes, draw_strip, time_table, write_all
from sdgrpc.demo.scenes import CONCEPT, SCENES, SEED, STRENGTHS, draw_mask
from sdgrpc.terminal.views import PlainView
from sdgrpc.testing.server import draw_script, png, scripted_server
from sdgrpc.v1 import diffusion_pb2 as pb


@pytest.fixture(scope="module")
def drawn():
    """The requests and the results of one run."""
    console = Console(file=io.StringIO())
    with scripted_server(draw_script(steps=5)) as server, Client(server.target) as client:
        results = draw_scenes(client, draw_mask(), lambda title: PlainView(console, title))
        yield server.requests, results


def test_asks_for_each_rpc(drawn) -> None:
    """Four pictures from noise with no, one, one and two LoRAs; the first transformed and inpainted."""
    requests, _ = drawn
    assert [type(request) for request in requests] == [pb.GenerateRequest] * 4 + [
        pb.TransformRequest,
        pb.InpaintRequest,
    ]
    assert [len(request.loras) for request in requests] == [0, 1, 1, 2, 0, 0]
    assert requests[0].prompt == requests[1].prompt
    assert {request.sampling.seed for request in requests} == {SEED}
    assert requests[4].image.data == requests[5].image.data == png()


def test_mask_is_white_on_black() -> None:
    """The mask has both what is redrawn and what is kept."""
    mask = draw_mask()
    assert (mask.size, mask.mode, mask.getextrema()) == ((128, 128), "L", (0, 255))
    assert (mask.getpixel((63, 64)), mask.getpixel((64, 64))) == (0, 255)


def test_writes_pictures_as_they_were_sent(drawn, tmp_path: Path) -> None:
    """The files are the server's bytes, and the animation has a frame for each preview and the picture."""
    strip = [Image.new("RGB", (8, 8))] * len(STRENGTHS)
    console = Console(file=io.StringIO())
    with scripted_server(draw_script(steps=1)) as server, Client(server.target) as client:
        pairs = draw_pairs(client, lambda title: PlainView(console, title))
    write_all(tmp_path, drawn[1], strip, pairs, draw_mask())
    assert all((tmp_path / f"{scene.name}.png").read_bytes() == png() for scene in SCENES)
    assert (tmp_path / "contact-sheet.png").exists()
    with Image.open(tmp_path / "denoising.webp") as animation:
        assert animation.format == "WEBP"
    assert [step for step, _ in drawn[1][0].previews] == [1, 2, 3, 4]


def test_table_adds_up(drawn) -> None:
    """The last line sums the columns, the total sums the parts."""
    console = Console(file=io.StringIO(), width=120)
    console.print(time_table(drawn[1]))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    plain = next(line for line in lines if "plain" in line)
    assert "1.50" in plain  # the script says so: a second and a half of denoising
    everything = [float(cell) for cell in lines[-2].replace("│", " ").split()[1:]]
    assert everything[:5] == [0.0, 0.0, 9.0, 0.0, 9.0]


def test_strip_asks_for_every_strength() -> None:
    """One LoRA from 0 to 1, everything else alike."""
    console = Console(file=io.StringIO())
    with scripted_server(draw_script(steps=2)) as server, Client(server.target) as client:
        assert len(draw_strip(client, lambda title: PlainView(console, title))) == len(STRENGTHS)
    (asked,) = server.requests
    (lora,) = asked.loras
    assert (lora.name, lora.HasField("strength")) == (CONCEPT.name, False)
    assert list(lora.strength_grid) == pytest.approx(STRENGTHS)
    assert (STRENGTHS[0], STRENGTHS[-1]) == (0, 1)
