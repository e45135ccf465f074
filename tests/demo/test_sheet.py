"""The contact sheet and the animation."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from sdgrpc.demo import sheet
from sdgrpc.demo.animation import GAP, LAST_MS, SIDE, pick_evenly, write_animation
from sdgrpc.demo.sheet import Card, Filmstrip, contact_sheet

RED, BLUE = (220, 45, 45), (40, 90, 215)


def test_sheet_shows_every_picture() -> None:
    """Each card's picture stands in its place, with its insets; the strip has every frame."""
    red, blue = (Image.new("RGB", (128, 128), colour) for colour in (RED, BLUE))
    cards = [Card(red, "One", "a prompt " * 20, ["postcard 0.8"]) for _ in range(3)]
    cards.append(Card(blue, "Four", "short", insets=[red]))
    page = contact_sheet(
        "title", "subtitle", cards, [Filmstrip("strip", [(red, "step 1"), (blue, "step 2")])] * 2
    )
    colours = {colour: count for count, colour in page.getcolors(1 << 20)}
    frame = (page.width - 2 * sheet.MARGIN - sheet.FRAME_GAP) // 2
    inner = lambda side: (side - 2) ** 2  # noqa: E731 - the outline takes a pixel on each side
    assert colours[RED] == 3 * inner(sheet.PICTURE) + inner(sheet.INSET) + 2 * inner(frame)
    assert colours[BLUE] == inner(sheet.PICTURE) + 2 * inner(frame)
    assert sheet.CHIP in colours


def test_captions_stay_within_their_card() -> None:
    """Long prompts are wrapped at their card's width."""
    font = sheet._font(18)
    for line in sheet._wrap("a large yellow circle on a blue background " * 3, font, 200):
        assert font.getlength(line) <= 200


def test_animation_has_every_frame(tmp_path: Path) -> None:
    """Every step is a frame, with all films side by side, and the last one stays."""
    frames = [Image.new("RGB", (16, 16), (40 * index, 0, 0)) for index in range(5)]
    write_animation(tmp_path / "a.webp", [frames] * 6)
    with Image.open(tmp_path / "a.webp") as animation:
        assert animation.n_frames == 5  # type: ignore[attr-defined]
        assert animation.size == (3 * SIDE + 2 * GAP, 2 * SIDE + GAP)
        animation.seek(4)
        animation.load()
        assert animation.info["duration"] == LAST_MS


@pytest.mark.parametrize(
    ("count", "wanted", "picked"), [(3, 5, [0, 1, 2]), (9, 3, [0, 4, 8]), (24, 4, [0, 8, 15, 23])]
)
def test_frames_are_picked_evenly(count: int, wanted: int, picked: list[int]) -> None:
    """The first and the last are always among them."""
    assert pick_evenly(count, wanted) == picked
