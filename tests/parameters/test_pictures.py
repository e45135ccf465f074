"""Where pictures keep the text, as we, A1111 and others write it."""

from __future__ import annotations

from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sdgrpc import images
from sdgrpc.domain import Picture
from sdgrpc.parameters.pictures import EXIF_IFD, USER_COMMENT, NoParameters, text_of_picture

PICTURE = Picture(8, 8, 3, bytes(192))
TEXT = "a castle, 漢字 é\nNegative prompt: b\nSteps: 1, Seed: 2, Size: 8x8"


def with_comment(comment: bytes, kind: str = "JPEG") -> bytes:
    """A picture whose EXIF user comment holds these bytes."""
    exif, buffer = Image.Exif(), BytesIO()
    exif.get_ifd(EXIF_IFD)[USER_COMMENT] = comment
    Image.new("RGB", (8, 8)).save(buffer, kind, exif=exif.tobytes())
    return buffer.getvalue()


def png(**chunks: str) -> bytes:
    info, buffer = PngInfo(), BytesIO()
    for key, text in chunks.items():
        info.add_text(key, text)
    Image.new("RGB", (8, 8)).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


@pytest.mark.parametrize("media_type", images.MEDIA_TYPES)
@pytest.mark.parametrize("text", [TEXT, "a\nSteps: 1, Seed: 1, Size: 8x8"])
def test_our_own_pictures(media_type: str, text: str) -> None:
    """What is written is read, in each format."""
    assert text_of_picture(images.encode(PICTURE, media_type, text=text).data) == text


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1))
def test_any_text_in_a_png(text: str) -> None:
    """Whatever signs a prompt has, with the file's other chunks before and after."""
    assert text_of_picture(images.encode(PICTURE, text=text).data) == text


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
@pytest.mark.parametrize(
    "comment",
    [
        b"UNICODE\0" + TEXT.encode("utf-16-be"),
        b"UNICODE\0" + TEXT.encode("utf-16-le"),
        b"UNICODE\0" + TEXT.encode("utf-16"),
        b"\0" * 8 + TEXT.encode(),
        b"ASCII\0\0\0" + TEXT.encode(),
        TEXT.encode(),
    ],
)
def test_other_programs_comments(kind: str, comment: bytes) -> None:
    """UTF-16 of either order, with a mark or without, and UTF-8."""
    assert text_of_picture(with_comment(comment, kind)) == TEXT


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "is not a PNG"),
        (b"GIF89a", "is not a PNG"),
        (png()[:30], "is not a PNG"),
        (png(), "holds no generation parameters"),
        (png(Comment="x"), "holds no generation parameters"),
        (png(parameters=""), "holds no generation parameters"),
        (with_comment(b""), "holds no generation parameters"),
        (png(prompt="{}", workflow="{}"), "workflow of ComfyUI"),
    ],
)
def test_pictures_without_the_text(data: bytes, sentence: str) -> None:
    """It is said what they are."""
    with pytest.raises(NoParameters, match=sentence):
        text_of_picture(data)
