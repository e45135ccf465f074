"""The official client, unchanged, against a door before a real engine."""

from __future__ import annotations

import base64
import io
import logging

import openai
import pytest
from PIL import Image, ImageChops

from sdgrpc.client import AsyncClient
from tests.support.api import png


def opened(b64: str | None) -> Image.Image:
    assert b64
    return Image.open(io.BytesIO(base64.b64decode(b64)))


def masked(side: int) -> bytes:
    """A mask whose left half is transparent: that is redrawn."""
    alpha = Image.new("L", (side, side), 255)
    alpha.paste(0, (0, 0, side // 2, side))
    image = Image.new("RGBA", (side, side), "white")
    image.putalpha(alpha)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


async def test_generates_what_the_server_draws(door) -> None:
    """The picture is byte for byte the gRPC client's, with our own fields in the body."""
    extra = {"seed": 7, "steps": 3, "loras": ["postcard:0.8", {"name": "night", "strength": 0.5}]}
    async with door.openai() as client:
        answer = await client.images.generate(
            prompt="a red circle", n=2, size="64x64", extra_body=extra, user="somebody"
        )
    assert [one.seed for one in answer.data] == [7, 8]
    assert (answer.size, answer.output_format) == ("64x64", "png")
    async with AsyncClient(door.grpc) as direct:
        drawn = await direct.generate(
            "a red circle",
            seed=7,
            steps=3,
            loras=["postcard:0.8", "night:0.5"],
            width=64,
            height=64,
            image_count=2,
        ).images()
    assert [base64.b64decode(one.b64_json) for one in answer.data] == [one.image.data for one in drawn]


async def test_a_callers_trace_goes_on_to_the_server(door, caplog: pytest.LogCaptureFixture) -> None:
    """The header of the HTTP call is that of the gRPC calls, whose lines in the log name the trace."""
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    with caplog.at_level(logging.INFO, "sdgrpc.api.calls.log"):
        async with door.openai() as client:
            await client.images.generate(
                prompt="a star", size="64x64", extra_body={"steps": 2}, extra_headers=headers
            )
    assert any("rpc=Generate" in line and f"trace_id={trace}" in line for line in caplog.messages)


async def test_a_lora_is_a_model(door) -> None:
    """Models are listed with the LoRAs that fit, and each name draws."""
    async with door.openai() as client:
        names = [model.id async for model in client.models.list()]
        assert names[:2] == ["embedded", "embedded:flower"]
        assert (await client.models.retrieve("embedded:night")).id == "embedded:night"
        common = {"prompt": "a star", "extra_body": {"seed": 1, "steps": 2}}
        plain = await client.images.generate(model="embedded", **common)
        night = await client.images.generate(model="embedded:night", **common)
        listed = await client.images.generate(
            prompt="a star", extra_body={"seed": 1, "steps": 2, "loras": ["night"]}
        )
    assert night.data[0].b64_json == listed.data[0].b64_json != plain.data[0].b64_json


async def test_edits_redraw_where_the_mask_is_transparent(door) -> None:
    """What is opaque is kept to the pixel."""
    before = png(64, 64, "blue")
    async with door.openai() as client:
        answer = await client.images.edit(
            image=("a.png", before, "image/png"),
            mask=("m.png", masked(64), "image/png"),
            prompt="a red circle",
            size="64x64",
            extra_body={"seed": 3, "steps": 4, "strength": 1.0, "loras": ["night:0.5"]},
        )
    difference = ImageChops.difference(
        opened(answer.data[0].b64_json).convert("RGB"), Image.open(io.BytesIO(before))
    )
    assert difference.crop((34, 0, 64, 64)).getbbox() is None
    assert difference.crop((0, 0, 32, 64)).getbbox() is not None


@pytest.mark.parametrize("partial_images", [0, 1, 3])
async def test_streams_partial_images(door, partial_images) -> None:
    """As many as are asked for, counted from 0, then the picture that a call without stream gets."""
    common = {"prompt": "a star", "extra_body": {"seed": 5, "steps": 8}, "output_format": "webp"}
    async with door.openai() as client:
        stream = await client.images.generate(stream=True, partial_images=partial_images, **common)
        events = [event async for event in stream]
        whole = await client.images.generate(**common)
    *partial, last = events
    assert [one.type for one in partial] == ["image_generation.partial_image"] * partial_images
    assert [one.partial_image_index for one in partial] == list(range(partial_images))
    assert len({one.b64_json for one in partial}) == partial_images
    for one in partial:
        assert opened(one.b64_json).format.lower() == one.output_format
    assert last.type == "image_generation.completed"
    assert last.usage.total_tokens == 0
    assert last.b64_json == whole.data[0].b64_json
    assert opened(last.b64_json).format == "WEBP"


async def test_an_edit_streams_by_its_own_name(door) -> None:
    """Events are `image_edit.*`, of a form as well."""
    async with door.openai() as client:
        stream = await client.images.edit(
            image=png(64, 64),
            prompt="a star",
            stream=True,
            partial_images=2,
            extra_body={"steps": 8, "strength": 0.75},
        )
        kinds = [event.type async for event in stream]
    assert kinds == ["image_edit.partial_image"] * 2 + ["image_edit.completed"]


@pytest.mark.parametrize(
    ("options", "extra", "param"),
    [
        ({"size": "65x64"}, {}, "size"),
        ({"size": "big"}, {}, "size"),
        ({"n": 1000}, {}, "n"),
        ({"n": 0}, {}, "n"),
        ({"quality": "hd"}, {}, "quality"),
        ({"background": "transparent"}, {}, "background"),
        ({"response_format": "url"}, {}, "response_format"),
        ({"style": "vivid"}, {}, "style"),
        ({"output_compression": 50}, {}, "output_compression"),
        ({"output_format": "jpeg", "output_compression": 101}, {}, "output_compression"),
        ({"stream": True, "partial_images": 4}, {}, "partial_images"),
        ({"partial_images": 1}, {}, "partial_images"),
        ({"stream": True}, {"steps": 9999}, "steps"),
        ({}, {"steps": "many"}, "steps"),
        ({}, {"steps": 2**31}, "steps"),
        ({}, {"guidance_scale": 1e39}, "guidance_scale"),
        ({}, {"scheduler": "eulr"}, "scheduler"),
        ({}, {"sede": 3}, "sede"),
        ({}, {"loras": ["night:0.5", "night:big"]}, "loras[1]"),
        ({}, {"loras": [{"name": "night", "strength": "much"}]}, "loras[0].strength"),
        ({}, {"loras": ["night:9999"]}, "loras[0].strength"),
        ({}, {"loras": [{"name": "night", "block_weights": 1}]}, "loras[0].block_weights"),
        ({}, {"loras": [{"name": "night", "block_weights": [1]}]}, "loras[0].block_weights.values"),
        ({}, {"loras": ["night:lbw=DEEP"]}, "loras[0]"),
        ({}, {"loras": [{"name": "night", "start": "half"}]}, "loras[0].start"),
        ({}, {"loras": ["night:start=0.5:end=0.25"]}, "loras[0].end"),
        ({}, {"strength": 0.5}, "strength"),
        ({"prompt": ""}, {}, "prompt"),
    ],
)
async def test_errors_name_the_key(door, options, extra, param) -> None:
    """A 400 of OpenAI's form, before anything is drawn."""
    async with door.openai() as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.images.generate(**({"prompt": "a star"} | options), extra_body=extra)
    assert (caught.value.param, caught.value.type) == (param, "invalid_request_error")
    assert caught.value.code
    assert param.partition("[")[0] in caught.value.message


@pytest.mark.parametrize(
    ("options", "param"),
    [({"model": "nobody"}, "model"), ({"model": "embedded:nobody"}, "loras")],
)
async def test_what_is_not_there_is_404(door, options, param) -> None:
    """Models and LoRAs."""
    async with door.openai() as client:
        with pytest.raises(openai.NotFoundError) as caught:
            await client.images.generate(prompt="a star", **options)
    assert caught.value.param == param


@pytest.mark.parametrize("mask", [b"no picture", png(64, 64)], ids=["broken", "opaque"])
async def test_a_mask_without_transparency_is_refused(door, mask) -> None:
    """By its key."""
    async with door.openai() as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.images.edit(image=png(64, 64), mask=mask, prompt="a star")
    assert caught.value.param == "mask"
