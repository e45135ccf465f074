"""Requests judged as a whole."""

from __future__ import annotations

import math
from io import BytesIO

import pytest
from PIL import Image

from sdgrpc.api.validate import read
from sdgrpc.domain import (
    REFUSES_SAMPLE_PREDICTION,
    SUPPORTED_SPACINGS,
    GuidanceInterval,
    Scheduler,
    SigmaSpacing,
    StepReuse,
    TimestepSpacing,
)
from sdgrpc.errors import InvalidRequest, ModelNotFound
from sdgrpc.v1 import diffusion_pb2 as pb
from tests.support.api import generate, inpaint, make_settings, png, transform
from tests.support.engine import make_model

HASH = "0123456789abcdef" * 4


def by_block(**weights) -> pb.Lora:
    return pb.Lora(name="inks", strength=0.8, block_weights=pb.BlockWeights(**weights))


def violations(request, *, models=None, **settings) -> dict[str, str]:
    """Field -> sentence, one per field; empty for a valid request."""
    found = []
    try:
        read(request, make_settings(**settings), models or [make_model()])
    except InvalidRequest as error:
        found = [(each.field, each.description) for each in error.violations]
    assert len(dict(found)) == len(found)
    return dict(found)


@pytest.mark.parametrize("request_of", [generate, transform, inpaint])
def test_a_plain_request_is_valid(request_of) -> None:
    """What the examples send passes."""
    assert violations(request_of()) == {}


def test_every_violation_is_named_at_once() -> None:
    """A client mends its request in one go."""
    request = inpaint(
        request_id="a\x07",
        model="nope",
        prompt="x" * 4001,
        loras=[pb.Lora(name="inks"), pb.Lora(name="dots", strength=1.5)],
        sampling=pb.Sampling(steps=151, guidance_scale=math.nan, scheduler=99, seed=-1, image_count=99),
        output=pb.Output(media_type="image/gif", quality=101, preview=pb.PreviewOptions(every_n_steps=-1)),
        width=100,
        height=-8,
        image=pb.Image(data=b"no image"),
        strength=1.25,
        mask=pb.Image(data=png()[:60]),
        mask_options=pb.MaskOptions(blur=-1, crop_padding=-1),
    )
    assert violations(request) == {
        "request_id": "has characters that cannot be printed",
        "prompt": "has 4001 characters; the most is 4000",
        "loras[1].strength": "1.5 is above 1.0; the server's operator can change that with lora_strength_max",
        "sampling.steps": "151 is above 150",
        "sampling.guidance_scale": "nan is not a finite number",
        "sampling.scheduler": "99 is not a Scheduler; they go from 0 to 16",
        "sampling.seed": "-1 is below 0; leave it unset for a random seed",
        "sampling.image_count": "99 is above 8",
        "output.media_type": "is none of image/png, image/jpeg, image/webp",
        "output.quality": "101 is above 100",
        "output.preview.every_n_steps": "-1 is below 1",
        "width": "100 is not a multiple of 8; 96 and 104 are",
        "height": "-8 is below 64",
        "image.data": "is not a PNG, JPEG or WebP file",
        "strength": "1.25 is above 1.0",
        "mask.data": "is truncated or damaged",
        "mask_options.blur": "-1.0 is below 0.0",
        "mask_options.crop_padding": "-1 is below 0",
        "model": "no model 'nope' here; there are: fake",
    }


@pytest.mark.parametrize(
    ("changes", "field", "sentence"),
    [
        ({"prompt": "x" * 4001}, "prompt", "has 4001 characters; the most is 4000"),
        ({"negative_prompt": "x" * 4001}, "negative_prompt", "has 4001 characters; the most is 4000"),
        ({"request_id": "x" * 257}, "request_id", "has 257 characters; the most is 256"),
        ({"width": 56}, "width", "56 is below 64"),
        ({"height": 4104}, "height", "4104 is above 4096"),
        ({"width": 4096, "height": 2048}, "width", "4096x2048 are 8388608 pixels; the most is 4194304"),
        ({"loras": [pb.Lora(name="x")] * 17}, "loras", "has 17 entries; the most is 16"),
        ({"loras": [pb.Lora(strength=1)]}, "loras[0]", "set one of name, sha256, safetensors"),
        ({"loras": [pb.Lora(name="")]}, "loras[0].name", "is required and is empty"),
        ({"loras": [pb.Lora(name="a\0")]}, "loras[0].name", "has characters that cannot be printed"),
        ({"loras": [pb.Lora(sha256="12")]}, "loras[0].sha256", "is not a SHA-256: 64 hexadecimal digits"),
        (
            {"loras": [pb.Lora(name="a", strength=math.inf)]},
            "loras[0].strength",
            "inf is not a finite number",
        ),
        (
            {"loras": [pb.Lora(name="a", text_encoder_strength=-0.5)]},
            "loras[0].text_encoder_strength",
            "-0.5 is below 0.0; the server's operator can change that with lora_strength_min",
        ),
        (
            {"loras": [pb.Lora(name="a", strength_grid=[0, 0.5, 1.5])]},
            "loras[0].strength_grid[2]",
            "1.5 is above 1.0; the server's operator can change that with lora_strength_max",
        ),
        (
            {"loras": [pb.Lora(name="a", strength_grid=[0.1] * 9)]},
            "loras[0].strength_grid",
            "has 9 entries; the most is 8",
        ),
        (
            {"loras": [pb.Lora(name="a", strength=1, strength_grid=[0, 1])]},
            "loras[0].strength_grid",
            "stands in place of `strength`; set one of the two",
        ),
        (
            {"loras": [pb.Lora(name="a", strength_grid=[0, 1]), pb.Lora(name="b", strength_grid=[0, 1])]},
            "loras[1].strength_grid",
            "only one LoRA has a grid, and loras[0] has one",
        ),
        (
            {"loras": [pb.Lora(name="a", strength_grid=[0, 1])], "sampling": pb.Sampling(image_count=3)},
            "loras[0].strength_grid",
            "has 2 strengths, and sampling.image_count is 3; leave that unset",
        ),
        (
            {"loras": [pb.Lora(name="a", strength_grid=[0, 1])], "sampling": pb.Sampling(late_start=0.3)},
            "loras[0].strength_grid",
            "takes no sampling.late_start: its pictures are compared",
        ),
        (
            {"sampling": pb.Sampling(late_start=1.5)},
            "sampling.late_start",
            "1.5 is above 1.0; it is a share of the schedule",
        ),
        (
            {"loras": [pb.Lora(name="a", start=1.5)]},
            "loras[0].start",
            "1.5 is above 1.0; it is a share of the schedule",
        ),
        (
            {"loras": [pb.Lora(name="a"), pb.Lora(name="a", end=-0.5)]},
            "loras[1].end",
            "-0.5 is below 0.0; it is a share of the schedule",
        ),
        (
            {"loras": [pb.Lora(name="a", start=0.5, end=0.5)]},
            "loras[0].end",
            "0.5 is not above the start, 0.5",
        ),
        (
            {"loras": [pb.Lora(name="a", start=1)]},
            "loras[0].start",
            "1 is not below the end, 1",
        ),
        (
            {"prompt": "a <lora:x:start=5:end=10>"},
            "prompt",
            "holds <lora:x>, whose end 10.0 is above 1.0; it is a share of the schedule; "
            "holds <lora:x>, whose start 5.0 is above 1.0; it is a share of the schedule",
        ),
        (
            {"prompt": "a <lora:x:start=0.5:end=0.25>"},
            "prompt",
            "holds <lora:x>, whose end 0.25 is not above the start, 0.5",
        ),
        (
            {"loras": [by_block(values=[1, 0])]},
            "loras[0].block_weights.values",
            "has 2 numbers; this model takes 17 (BASE, IN01, IN02, IN04, IN05, IN07, IN08, M00, OUT03, "
            "OUT04, OUT05, OUT06, OUT07, OUT08, OUT09, OUT10, OUT11) or 26 (all blocks)",
        ),
        (
            {"loras": [pb.Lora(name="x"), by_block(values=[1, math.nan, 0])]},
            "loras[1].block_weights.values[1]",
            "nan is not a finite number",
        ),
        (
            {"loras": [by_block(values=[1] * 65)]},
            "loras[0].block_weights.values",
            "has 65 entries; the most is 64",
        ),
        (
            {"loras": [by_block(values=[1] * 16 + [1.5])]},
            "loras[0].block_weights.values[16]",
            "1.5 times the strength 0.8: 1.2 is above 1.0; the server's operator can change that with "
            "lora_strength_max",
        ),
        (
            {"loras": [by_block(blocks={"text_encoder": -0.5})]},
            "loras[0].block_weights.blocks[text_encoder]",
            "-0.5 times the strength 0.8: -0.4 is below 0.0; the server's operator can change that with "
            "lora_strength_min",
        ),
        (
            {"loras": [by_block(blocks={"unet.up.block_9": 1})]},
            "loras[0].block_weights.blocks",
            "'unet.up.block_9' is no block of this model",
        ),
        (
            {"loras": [by_block(blocks={"unet.mid": math.inf})]},
            "loras[0].block_weights.blocks[unet.mid]",
            "inf is not a finite number",
        ),
        (
            {"loras": [by_block(preset="DEEP")]},
            "loras[0].block_weights.preset",
            "is none of ALL, ALL0.5, NONE, INS, IND, INALL, MIDD, OUTD, OUTS, OUTALL",
        ),
        ({"loras": [by_block()]}, "loras[0].block_weights", "set one of values, preset, blocks"),
        (
            {"loras": [by_block(preset="ALL", values=[1])]},
            "loras[0].block_weights",
            "set one of values, preset, blocks",
        ),
        (
            {"loras": [pb.Lora(safetensors=b"x")]},
            "loras[0].safetensors",
            "this server takes no LoRA files in requests; name one, or give its sha256",
        ),
    ],
)
def test_fields_of_every_request(changes: dict, field: str, sentence: str) -> None:
    """Each wrong field alone is the one violation."""
    assert violations(generate(**changes)) == {field: sentence}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"steps": -1}, "-1 is below 1"),
        ({"steps": 151}, "151 is above 150"),
        ({"guidance_scale": 0.5}, "0.5 is below 1.0; 1 turns guidance off"),
        ({"guidance_scale": 101}, "101.0 is above 100.0; 1 turns guidance off"),
        ({"sigma_spacing": 5}, "5 is not a SigmaSpacing; they go from 0 to 4"),
        ({"image_count": -1}, "-1 is below 1"),
        ({"image_count": 9}, "9 is above 8"),
        ({"clip_skip": -1}, "-1 is below 0"),
        ({"clip_skip": 12}, "12 is above 11; the text encoder has 12 layers"),
        ({"seed": 2**63 - 1, "image_count": 2}, "9223372036854775807 leaves no seeds for 2 images"),
    ],
)
def test_fields_of_sampling(changes: dict, sentence: str) -> None:
    """Each wrong field alone is the one violation, named below `sampling`."""
    field = next(iter(changes))
    assert violations(generate(sampling=pb.Sampling(**changes))) == {f"sampling.{field}": sentence}


@pytest.mark.parametrize(
    ("changes", "field", "sentence"),
    [
        ({"kind": 4}, "kind", "4 is not a PreviewKind; they go from 0 to 3"),
        ({"kind": 1, "every_n_steps": 151}, "every_n_steps", "151 is above 150"),
        ({"kind": 1, "max_side": -1}, "max_side", "-1 is below 1"),
        ({"kind": 1, "max_side": 5000}, "max_side", "5000 is above 4096"),
    ],
)
def test_fields_of_previews(changes: dict, field: str, sentence: str) -> None:
    """Each wrong field alone is the one violation, named below `output.preview`."""
    request = generate(output=pb.Output(preview=pb.PreviewOptions(**changes)))
    assert violations(request) == {f"output.preview.{field}": sentence}


@pytest.mark.parametrize("request_of", [transform, inpaint])
@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "is empty"),
        (b"hello", "is not a PNG, JPEG or WebP file"),
        (png(60000, 1), "is 60000x1 pixels; no side may have more than 16384"),
        (png()[:-40], "is truncated or damaged"),
        (png(200, 200), "is 200x200 pixels, 40000 in all; the most is 30000"),
        (b"\x89PNG\r\n\x1a\n" + bytes(900), "has 908 bytes; the most is 900"),
    ],
)
def test_undecodable_images(request_of, data: bytes, sentence: str) -> None:
    """What cannot be decoded, or must not be, is named."""
    request = request_of(image=pb.Image(data=data))
    assert violations(request, max_image_pixels=30_000, max_image_bytes=900) == {"image.data": sentence}


def test_images_are_required() -> None:
    """A Transform needs its start, an Inpaint a mask too."""
    assert violations(pb.TransformRequest(prompt="a")) == {"image": "is required and is not set"}
    assert violations(pb.InpaintRequest(prompt="a")) == {
        "image": "is required and is not set",
        "mask": "is required and is not set",
    }


def test_the_mask_is_as_large_as_the_image() -> None:
    """Sizes are compared as a viewer shows them, so after the EXIF orientation."""
    mask = pb.Image(data=png(64, 128, colour=255, mode="L"))
    sentence = "is 64x128 pixels; the image is 128x64, and they must be equal"
    assert violations(inpaint(image=pb.Image(data=png(128, 64)), mask=mask)) == {"mask": sentence}
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = BytesIO()
    Image.new("RGB", (128, 64)).save(buffer, "JPEG", exif=exif)
    assert violations(inpaint(image=pb.Image(data=buffer.getvalue()), mask=mask)) == {}


def test_an_input_too_small_or_large_for_the_default_size_is_named() -> None:
    """The size that a default stands for is judged too, and can be set instead."""
    small = {"image": pb.Image(data=png(40, 200))}
    assert violations(transform(**small)) == {"width": "is unset, which means 40: 40 is below 64; set it"}
    assert violations(transform(**small, width=64)) == {}
    large = {"image": pb.Image(data=png(200, 128))}
    assert violations(transform(**large), max_pixels=20_000) == {
        "width": "200x128 are 25600 pixels; the most is 20000"
    }
    assert violations(transform(**large), max_side=192) == {
        "width": "is unset, which means 200: 200 is above 192; set it"
    }


def test_spacings_that_a_scheduler_cannot_take() -> None:
    """Every pair of the contract is either supported or named, the model's default scheduler too."""
    for scheduler in Scheduler:
        for spacing in SigmaSpacing:
            sampling = pb.Sampling(
                scheduler=f"SCHEDULER_{scheduler.name}", sigma_spacing=f"SIGMA_SPACING_{spacing.name}"
            )
            found = violations(generate(sampling=sampling))
            assert set(found) == (
                set() if spacing in SUPPORTED_SPACINGS[scheduler] else {"sampling.sigma_spacing"}
            )
    models = [make_model(scheduler=Scheduler.DDIM)]
    sampling = pb.Sampling(sigma_spacing=pb.SIGMA_SPACING_KARRAS)
    assert violations(generate(sampling=sampling), models=models) == {
        "sampling.sigma_spacing": "KARRAS is not supported by the scheduler DDIM, which takes: DEFAULT"
    }


def test_an_unknown_model_alone_is_not_found() -> None:
    """NOT_FOUND if nothing else is wrong; else it is one of the violations (tested above)."""
    with pytest.raises(ModelNotFound, match="no model 'nope' here; there are: fake") as caught:
        read(generate(model="nope"), make_settings(), [make_model()])
    assert caught.value.name == "nope"


def test_the_operator_sets_the_limits() -> None:
    """Settings widen and narrow what passes; a default outside of them is named like a value."""
    lora = pb.Lora(name="inks", strength=-1.5)
    wide = {
        "max_steps": 1000,
        "lora_strength_min": -2.0,
        "allow_inline_loras": True,
        "max_prompt_chars": 9000,
    }
    request = generate(
        prompt="x" * 9000, loras=[lora, pb.Lora(safetensors=b"x")], sampling=pb.Sampling(steps=1000)
    )
    assert violations(request, **wide) == {}
    assert violations(generate(loras=[pb.Lora(name="inks")]), lora_strength_max=0.5) == {
        "loras[0].strength": "is unset, which means 1.0: 1.0 is above 0.5"
        "; the server's operator can change that with lora_strength_max"
    }
    assert violations(generate(sampling=pb.Sampling()), max_steps=3) == {
        "sampling.steps": "is unset, which means 4: 4 is above 3; set it"
    }


@pytest.mark.parametrize(
    ("content", "sentence"), [(b"", "is empty"), (b"12345", "has 5 bytes; the most is 4")]
)
def test_inline_loras_where_they_are_allowed(content: bytes, sentence: str) -> None:
    """They need content of limited size."""
    request = generate(loras=[pb.Lora(safetensors=content)])
    found = violations(request, allow_inline_loras=True, max_inline_lora_bytes=4)
    assert found == {"loras[0].safetensors": sentence}


def test_limits_are_inclusive() -> None:
    """The extreme of every range is valid."""
    request = generate(
        loras=[pb.Lora(name="inks", strength=0), pb.Lora(sha256=HASH.upper(), strength=1)],
        sampling=pb.Sampling(steps=150, guidance_scale=1, seed=0, image_count=8, clip_skip=11),
        output=pb.Output(media_type="image/webp", quality=100),
        width=2048,
        height=2048,
    )
    assert violations(request) == {}
    assert violations(transform(strength=0)) == {}
    assert violations(transform(strength=1)) == {}


def test_sentences_do_not_repeat_the_clients_texts() -> None:
    """Prompts and image bytes never appear in a status."""
    request = transform(prompt="s3cret" * 1000, image=pb.Image(data=b"s3cret"), width=1)
    assert len(violations(request)) == 3
    assert "s3cret" not in str(violations(request))


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (transform(resize_mode=pb.RESIZE_MODE_PAD), {}),
        (inpaint(resize_mode=pb.RESIZE_MODE_PAD, width=64), {}),
        (inpaint(resize_mode=pb.RESIZE_MODE_STRETCH, mask_options=pb.MaskOptions(crop_padding=0)), {}),
        (transform(resize_mode=9), {"resize_mode": "9 is not a ResizeMode; they go from 0 to 3"}),
        (
            inpaint(resize_mode=pb.RESIZE_MODE_CROP),
            {"resize_mode": "CROP needs width or height: without them the result keeps the image's size"},
        ),
        (
            inpaint(resize_mode=pb.RESIZE_MODE_PAD, width=64, mask_options=pb.MaskOptions(crop_padding=0)),
            {"resize_mode": "PAD cannot be combined with mask_options.crop_padding; leave out one"},
        ),
    ],
)
def test_resize_modes_that_have_a_meaning(request_, expected: dict) -> None:
    """What could not be kept is refused."""
    assert violations(request_) == expected


def test_a_side_in_proportion_may_be_small_but_not_large() -> None:
    """A strip may be drawn; more than the server's longest side may not."""
    image = pb.Image(data=png(200, 100))
    assert violations(transform(image=image, width=64)) == {}
    expected = {"height": "is unset, which means 4104: 4104 is above 4096; set it"}
    assert violations(transform(image=pb.Image(data=png(8, 513)), width=64)) == expected


def test_no_words_are_a_prompt() -> None:
    """So is white space."""
    for prompt in ("", " "):
        assert violations(generate(prompt=prompt)) == {}


def test_sampling_that_does_not_go_together() -> None:
    """Timesteps beside noise levels, noise that the scheduler does not draw, what the model predicts."""
    euler = {"scheduler": "SCHEDULER_EULER"}
    both = pb.Sampling(
        **euler, sigma_spacing="SIGMA_SPACING_KARRAS", timestep_spacing="TIMESTEP_SPACING_TRAILING"
    )
    assert set(violations(generate(sampling=both))) == {"sampling.timestep_spacing"}
    noise = violations(generate(sampling=pb.Sampling(**euler, eta=0.5, gamma=0.5)))
    assert noise["sampling.eta"].startswith("the scheduler EULER has no eta; it belongs to DDIM, ")
    assert noise["sampling.gamma"] == "the scheduler EULER has no gamma; it belongs to TCD"
    aligned = pb.Sampling(scheduler="SCHEDULER_PNDM", timestep_spacing="TIMESTEP_SPACING_ALIGN_YOUR_STEPS")
    assert set(violations(generate(sampling=aligned))) == {"sampling.timestep_spacing"}
    models = [make_model(prediction_type="sample")]
    for scheduler in Scheduler:
        asked = generate(sampling=pb.Sampling(scheduler=f"SCHEDULER_{scheduler.name}"))
        refused = {"sampling.scheduler"} if scheduler in REFUSES_SAMPLE_PREDICTION else set()
        assert set(violations(asked, models=models)) == refused


@pytest.mark.parametrize(
    ("sampling", "field", "sentence"),
    [
        ({"guidance_interval": {"start": 0.5}}, "guidance_interval.end", "0.0 is not above the start, 0.5"),
        ({"guidance_interval": {"start": -1, "end": 1}}, "guidance_interval.start", "-1.0 is below 0.0"),
        ({"guidance_interval": {"end": math.nan}}, "guidance_interval.end", "nan is not a finite number"),
        ({"guidance_interval": {"start": 0.5, "end": 1.5}}, "guidance_interval.end", "1.5 is above 1.0"),
        (
            {"guidance_interval": {"start": 0.1, "end": 0.2}, "steps": 4},
            "guidance_interval",
            "none of 4 steps lies in it; widen it, or set guidance_scale to 1",
        ),
        (
            {"step_reuse": {}},
            "step_reuse.every",
            "0 is below 2; 2 asks in every second step, and unset `step_reuse` in all",
        ),
        ({"step_reuse": {"every": 2, "order": 3}}, "step_reuse.order", "3 is above 2"),
        (
            {"step_reuse": {"every": 3}, "steps": 17},
            "step_reuse",
            "17 steps lie too far apart for `every` 3, which needs 18 at least",
        ),
        (
            {"step_reuse": {"every": 3}, "steps": 20, "scheduler": "SCHEDULER_DDPM"},
            "step_reuse.every",
            "DDPM draws noise, over which only every second step is forecast: 2",
        ),
        (
            {"step_reuse": {"every": 2, "order": 2}, "steps": 20, "scheduler": "SCHEDULER_DDIM", "eta": 1},
            "step_reuse.order",
            "DDIM draws noise, which a parabola magnifies; set 1",
        ),
        (
            {"step_reuse": {"every": 2}, "scheduler": "SCHEDULER_LCM", "steps": 20},
            "step_reuse",
            "the scheduler LCM gains nothing by it: its few steps lie too far apart to be forecast",
        ),
    ],
)
def test_less_work_that_makes_no_sense(sampling: dict, field: str, sentence: str) -> None:
    """The one violation names what is wrong, and says why."""
    assert violations(generate(sampling=pb.Sampling(**sampling))) == {f"sampling.{field}": sentence}


def test_without_noise_more_can_be_forecast() -> None:
    """An eta of 0 makes an ancestral scheduler one that draws none."""
    asked = pb.Sampling(
        scheduler="SCHEDULER_EULER_ANCESTRAL", eta=0, steps=20, step_reuse={"every": 3, "order": 2}
    )
    assert violations(generate(sampling=asked)) == {}


def test_less_work_is_read() -> None:
    """Shares are the decimals that were sent, and the order has its default."""
    asked = pb.Sampling(
        steps=20, guidance_interval={"start": 0.1, "end": 0.8}, step_reuse={"every": 2}, scheduler=1
    )
    told = read(generate(sampling=asked), make_settings(), [make_model()]).sampling
    assert (told.guidance_interval, told.step_reuse) == (GuidanceInterval(0.1, 0.8), StepReuse(2, order=1))


def test_a_models_spacing_gives_way() -> None:
    """The card's spacing holds where nothing else is asked for and the scheduler takes it."""
    models = [make_model(timestep_spacing=TimestepSpacing.ALIGN_YOUR_STEPS)]

    def spaced(**sampling: str) -> TimestepSpacing | None:
        request = generate(sampling=pb.Sampling(**sampling))
        return read(request, make_settings(), models).sampling.timestep_spacing

    assert spaced() is TimestepSpacing.ALIGN_YOUR_STEPS
    assert spaced(timestep_spacing="TIMESTEP_SPACING_LEADING") is TimestepSpacing.LEADING
    assert spaced(scheduler="SCHEDULER_EULER", sigma_spacing="SIGMA_SPACING_KARRAS") is None
    assert spaced(scheduler="SCHEDULER_PNDM") is None
