"""The three calls that draw, their arguments made requests; what becomes of these is the client's matter."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Generic, TypeVar, Unpack

from sdgrpc.client.requests import (
    Drawn,
    Options,
    generate_request,
    inpaint_request,
    mask_message,
    transform_request,
)

if TYPE_CHECKING:
    from sdgrpc.client.pictures import ImageLike
    from sdgrpc.domain import Margins, MaskedContent, ResizeMode, SecondPass

T_co = TypeVar("T_co", covariant=True)


class DrawingCalls(ABC, Generic[T_co]):
    """What can be drawn. Each call gives what `_send` makes of its request: a job, or a plan."""

    @abstractmethod
    def _send(self, request: Drawn, options: Options) -> T_co: ...

    def generate(
        self, prompt: str, *, second_pass: SecondPass | str | None = None, **options: Unpack[Options]
    ) -> T_co:
        """Draw images from a prompt.

        `second_pass`, such as `SecondPass(2.0, strength=0.6)` or "2:0.6", enlarges them and draws on.
        """
        return self._send(generate_request(prompt, options, second_pass), options)

    def transform(
        self,
        prompt: str,
        image: ImageLike,
        *,
        strength: float | None = None,
        resize_mode: ResizeMode | str | None = None,
        **options: Unpack[Options],
    ) -> T_co:
        """Redraw `image` under a prompt; `strength` is how far from it, in [0, 1].

        With `width` or `height` alone it keeps its proportions; `resize_mode` ("stretch", "crop", "pad") says
        how it is brought to a size of other proportions.
        """
        return self._send(transform_request(prompt, image, strength, resize_mode, options), options)

    def inpaint(
        self,
        prompt: str,
        image: ImageLike,
        mask: ImageLike | None = None,
        *,
        strength: float | None = None,
        mask_blur: float = 0.0,
        crop_padding: int | None = None,
        masked_content: MaskedContent | str | None = None,
        soft: bool = False,
        cover: bool = False,
        margins: Margins | None = None,
        resize_mode: ResizeMode | str | None = None,
        **options: Unpack[Options],
    ) -> T_co:
        """Redraw the part of `image` where `mask`, an image of the same size, is white.

        `mask_blur` is pixels of its edge; with `crop_padding` only a crop around the mask, with so many
        pixels of padding, is redrawn at full resolution. Then, and without `width` and `height`, the result
        has the size of `image`.

        `masked_content` ("original", "fill", "noise", "nothing") is what the masked part starts from. With
        `soft` greys say how far a place is redrawn; with `cover` strokes thinner than 8 pixels are seen.
        `margins` are added to the picture and redrawn, with or without a mask.
        """
        use = mask_message(mask_blur, crop_padding, masked_content, soft=soft, cover=cover)
        request = inpaint_request(prompt, image, mask, strength, use, resize_mode, margins, options)
        return self._send(request, options)
