"""Keyword arguments become request messages."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from sdgrpc import client as api
from sdgrpc.client import Lora, PreviewKind, PreviewOptions
from sdgrpc.testing.server import (
    png,
)
from sdgrpc.v1 import diffusion_pb2 as pb


def test_generate_sends_every_option(server, client) -> None:
    """Every keyword argument lands in its field of the request."""
    client.generate(
        "a star",
        negative_prompt="blur",
        loras=[
            "postcard:0.8",
            ("sepia", -0.5),
            Lora(sha256="ab" * 32, text_encoder_strength=0.25, strict=True),
        ],
        model="embedded",
        steps=7,
        guidance_scale=3.5,
        scheduler="dpmpp_2m",
        sigma_spacing=api.SigmaSpacing.KARRAS,
        seed=0,
        image_count=2,
        clip_skip=1,
        guidance_interval=api.GuidanceInterval(0.25, 0.75),
        step_reuse=api.StepReuse(3, order=2),
        width=64,
        height=72,
        media_type="image/webp",
        quality=80,
        omit_metadata=True,
        preview=PreviewOptions(PreviewKind.DECODED, every_n_steps=2, max_side=32),
        request_id="job-1",
    ).result()
    assert server.requests == [
        pb.GenerateRequest(
            request_id="job-1",
            model="embedded",
            prompt="a star",
            negative_prompt="blur",
            loras=[
                pb.Lora(name="postcard", strength=0.8),
                pb.Lora(name="sepia", strength=-0.5),
                pb.Lora(sha256="ab" * 32, text_encoder_strength=0.25, strict=True),
            ],
            sampling=pb.Sampling(
                steps=7,
                guidance_scale=3.5,
                scheduler=pb.SCHEDULER_DPMPP_2M,
                sigma_spacing=pb.SIGMA_SPACING_KARRAS,
                seed=0,
                image_count=2,
                clip_skip=1,
                guidance_interval=pb.GuidanceInterval(start=0.25, end=0.75),
                step_reuse=pb.StepReuse(every=3, order=2),
            ),
            output=pb.Output(
                media_type="image/webp",
                quality=80,
                omit_metadata=True,
                preview=pb.PreviewOptions(kind=pb.PREVIEW_KIND_DECODED, every_n_steps=2, max_side=32),
            ),
            width=64,
            height=72,
        )
    ]


def test_defaults_leave_the_request_empty(server, client) -> None:
    """What the caller does not say is not sent, so that the server's defaults hold."""
    client.generate("a star").result()
    assert server.requests == [
        pb.GenerateRequest(prompt="a star", sampling=pb.Sampling(), output=pb.Output())
    ]
    assert not server.requests[0].sampling.HasField("seed")


def test_transform_and_inpaint_send_their_images(server, client, tmp_path: Path) -> None:
    """Images go out as bytes, from a file, from a PIL image or from an earlier answer."""
    path = tmp_path / "start.png"
    path.write_bytes(png())
    (earlier,) = client.generate("a star").images()
    client.transform("a heart", path, strength=0.0, resize_mode="crop", width=64).result()
    client.transform("a heart", png(16)).result()
    client.inpaint("a heart", earlier, Image.new("L", (8, 8), 255), mask_blur=2.5, crop_padding=0).result()
    first, second, third = server.requests[1:]
    assert first.image.data == png()
    assert first.HasField("strength")
    assert first.strength == 0
    assert second.image.data == png(16)
    assert not second.HasField("strength")
    assert third.image.data == earlier.image.data
    assert Image.open(io.BytesIO(third.mask.data)).getextrema() == (255, 255)
    assert third.mask_options == pb.MaskOptions(blur=2.5, crop_padding=0)


def test_wrong_arguments_are_named(client) -> None:
    """A name that does not exist fails before anything is sent, and says which there are."""
    with pytest.raises(ValueError, match=r"scheduler: no 'eular'; there are euler,"):
        client.generate("a star", scheduler="eular")
    with pytest.raises(TypeError, match="unknown option stepps"):
        client.generate("a star", stepps=3)
    with pytest.raises(TypeError, match="not int"):
        client.transform("a star", 3)
    with pytest.raises(ValueError, match="exactly one of"):
        Lora()
