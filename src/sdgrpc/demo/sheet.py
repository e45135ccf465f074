"""The contact sheet: every picture with its caption on one page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image, ImageDraw, ImageFont

PICTURE = 384
INSET = 82
GAP = 40
MARGIN = 56
COLUMNS = 3
CAPTION = 136
FRAME_GAP = 12
STRIP = 96  # a strip's title and labels

PAPER = (250, 250, 247)
INK = (28, 32, 38)
FAINT = (110, 116, 124)
LINE = (222, 222, 216)
CHIP = (226, 235, 250)
CHIP_INK = (30, 74, 140)

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Card:
    """One picture and what to say about it; `insets` are small pictures beside the caption."""

    picture: Image.Image
    title: str
    prompt: str
    chips: Sequence[str] = ()
    insets: Sequence[Image.Image] = field(default=())


@dataclass(frozen=True)
class Filmstrip:
    """Pictures in a row, each with a label."""

    title: str
    frames: Sequence[tuple[Image.Image, str]]


def contact_sheet(
    title: str, subtitle: str, cards: Sequence[Card], strips: Sequence[Filmstrip]
) -> Image.Image:
    """Lay the page out, `COLUMNS` cards to a row and the filmstrips below."""
    width = 2 * MARGIN + COLUMNS * PICTURE + (COLUMNS - 1) * GAP
    rows = -(-len(cards) // COLUMNS)
    top = MARGIN + 104
    strip_top = top + rows * (PICTURE + CAPTION)
    frames = [_frame_side(width, len(strip.frames)) for strip in strips]
    page = Image.new("RGB", (width, strip_top + sum(frames) + STRIP * len(strips) + MARGIN // 2), PAPER)
    draw = ImageDraw.Draw(page)
    draw.text((MARGIN, MARGIN - 12), title, INK, _font(46))
    draw.text((MARGIN, MARGIN + 46), subtitle, FAINT, _font(21))
    for index, card in enumerate(cards):
        x = MARGIN + index % COLUMNS * (PICTURE + GAP)
        y = top + index // COLUMNS * (PICTURE + CAPTION)
        _draw_card(page, draw, card, (x, y))
    for strip, frame in zip(strips, frames, strict=True):
        _draw_strip(page, draw, strip, (strip_top, frame))
        strip_top += frame + STRIP
    return page


def _draw_card(page: Image.Image, draw: ImageDraw.ImageDraw, card: Card, corner: tuple[int, int]) -> None:
    x, y = corner
    _paste(page, draw, card.picture, (x, y), PICTURE)
    free = PICTURE
    for inset in reversed(card.insets):
        _paste(page, draw, inset, (x + free - INSET, y + PICTURE + 14), INSET)
        free -= INSET + 10
    draw.text((x, y + PICTURE + 14), card.title, INK, _font(25))
    _draw_chips(draw, card, (x, y + PICTURE + 16))
    prompt_font = _font(18)
    for index, line in enumerate(_wrap(card.prompt, prompt_font, free)[:3]):
        draw.text((x, y + PICTURE + 50 + 23 * index), line, FAINT, prompt_font)


def _draw_chips(draw: ImageDraw.ImageDraw, card: Card, corner: tuple[int, int]) -> None:
    """Rounded labels, right-aligned on the title's line."""
    x, y = corner
    right: float = x + PICTURE
    font = _font(17)
    for chip in reversed(card.chips):
        left = right - font.getlength(chip) - 20
        draw.rounded_rectangle((left, y, right, y + 27), 13, fill=CHIP)
        draw.text((left + 10, y + 13), chip, CHIP_INK, font, anchor="lm")
        right = left - 8


def _draw_strip(
    page: Image.Image, draw: ImageDraw.ImageDraw, strip: Filmstrip, place: tuple[int, int]
) -> None:
    top, side = place
    draw.line((MARGIN, top - 8, page.width - MARGIN, top - 8), LINE, 2)
    draw.text((MARGIN, top + 8), strip.title, INK, _font(21))
    for index, (picture, label) in enumerate(strip.frames):
        x = MARGIN + index * (side + FRAME_GAP)
        _paste(page, draw, picture, (x, top + 46), side)
        draw.text((x + side / 2, top + 46 + side + 8), label, FAINT, _font(17), anchor="mt")


def _paste(
    page: Image.Image, draw: ImageDraw.ImageDraw, picture: Image.Image, corner: tuple[int, int], side: int
) -> None:
    x, y = corner
    page.paste(picture.convert("RGB").resize((side, side), Image.Resampling.BICUBIC), corner)
    draw.rectangle((x, y, x + side - 1, y + side - 1), outline=LINE)


def _frame_side(page_width: int, count: int) -> int:
    return (page_width - 2 * MARGIN - (count - 1) * FRAME_GAP) // count


def _wrap(text: str, font: Font, width: int) -> list[str]:
    """Break `text` into lines of at most `width` pixels, at spaces."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _font(size: int) -> Font:
    """Pillow's own typeface, so that the page looks alike everywhere."""
    return ImageFont.load_default(size)
