"""Masks and margins of requests."""

from __future__ import annotations

import pytest

from sdgrpc.api.validate import read
from sdgrpc.domain import Margins, MaskedContent, Task
from sdgrpc.errors import InvalidRequest
from sdgrpc.v1 import diffusion_pb2 as pb
from tests.support.api import inpaint, make_settings, png
from tests.support.engine import make_model


def read_task(request: pb.InpaintRequest, **model) -> Task:
    return read(request, make_settings(), [make_model(**model)])


def faults(request: pb.InpaintRequest, **model) -> set[str]:
    with pytest.raises(InvalidRequest) as caught:
        read_task(request, **model)
    return {each.field for each in caught.value.violations}


def test_margins_widen_both_and_need_no_mask() -> None:
    """The drawn size is the widened picture's; what is added is white, the rest black."""
    request = pb.InpaintRequest(image=pb.Image(data=png(64, 64)), margins=pb.Margins(left=16, bottom=8))
    asked = read_task(request)
    assert (asked.width, asked.height, asked.margins) == (80, 72, Margins(16, 0, 0, 8))
    assert asked.image is not None
    assert asked.mask is not None
    assert (asked.image.width, asked.mask.height) == (80, 72)
    assert (asked.mask.data[0], asked.mask.data[16], asked.mask.data[-1]) == (255, 0, 255)


def test_options_of_the_mask() -> None:
    """Unset is the original, hard, by one pixel of each cell."""
    assert read_task(inpaint()).mask_options.masked_content is MaskedContent.ORIGINAL
    options = pb.MaskOptions(masked_content=pb.MASKED_CONTENT_NOTHING, soft=True, cover=True)
    read_options = read_task(inpaint(mask_options=options)).mask_options
    assert (read_options.masked_content, read_options.soft) == (MaskedContent.NOTHING, True)
    assert read_options.cover


def test_what_does_not_go_together() -> None:
    """Margins of nothing without a mask, too wide ones, soft greys for a model that is shown the mask."""
    image = pb.Image(data=png(64, 64))
    assert faults(pb.InpaintRequest(image=image, margins=pb.Margins())) == {"mask"}
    assert faults(pb.InpaintRequest(image=image, margins=pb.Margins(left=-1))) == {"margins.left"}
    wide = pb.Margins(left=16384, right=16384, top=16384)
    assert faults(pb.InpaintRequest(image=image, margins=wide)) >= {"margins"}
    soft = inpaint(mask_options=pb.MaskOptions(soft=True))
    assert faults(soft, is_inpainting=True) == {"mask_options.soft"}
