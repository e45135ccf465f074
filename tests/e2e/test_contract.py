"""The contract over a real port, with the embedded model behind it."""

from __future__ import annotations

from io import BytesIO

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops

from sdgrpc.v1 import diffusion_pb2 as pb
from tests.support import requests
from tests.support.api import check_grammar, generate, inpaint, png, transform
from tests.support.assets import lora_hashes, lora_names

EMBEDDED = requests.Served("embedded", lora_names(), lora_hashes(), text_encoder_layers=3, fewest_steps=1)
METHODS = {pb.GenerateRequest: "Generate", pb.TransformRequest: "Transform", pb.InpaintRequest: "Inpaint"}


def events_of(stub, request) -> list[pb.JobEvent]:
    return list(getattr(stub, METHODS[type(request)])(request))


def images_of(stub, request) -> list[pb.GeneratedImage]:
    return [event.image for event in events_of(stub, request) if event.WhichOneof("event") == "image"]


def pixels(image: pb.Image) -> Image.Image:
    with Image.open(BytesIO(image.data)) as opened:
        return opened.convert("RGB")


def furthest(one: pb.Image, other: pb.Image) -> int:
    """The largest difference of two pictures, of 255."""
    bands = ImageChops.difference(pixels(one), pixels(other)).getextrema()
    return max(high for _, high in bands)  # type: ignore[misc]


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_requests_follow_the_grammar(stub, data: st.DataObject) -> None:
    """Whatever is valid is drawn, and answered in order."""
    request = data.draw(requests.valid(EMBEDDED))
    check_grammar(request, events_of(stub, request))


@pytest.mark.parametrize("scheduler", pb.Scheduler.values()[1:], ids=pb.Scheduler.Name)
def test_every_scheduler_counts_its_steps(stub, scheduler: int) -> None:
    """The steps announced are the steps reported, whole schedules as parts of them."""
    sampling = pb.Sampling(steps=4, scheduler=scheduler, seed=1)
    for request in (generate(sampling=sampling), transform(sampling=sampling, strength=0.5)):
        check_grammar(request, events_of(stub, request))


@pytest.mark.parametrize("guidance_scale", [1, 5])
def test_the_empty_prompt_is_drawn(stub, guidance_scale: float) -> None:
    """It is a prompt like any other: the model draws what it likes, and not what another prompt gives."""
    sampling = pb.Sampling(steps=4, seed=7, guidance_scale=guidance_scale)
    request = generate(prompt="", sampling=sampling)
    check_grammar(request, events_of(stub, request))
    (empty,), (named,) = (
        images_of(stub, request),
        images_of(stub, generate(prompt="a red circle", sampling=sampling)),
    )
    assert furthest(empty.image, named.image) > 20


@pytest.mark.parametrize(
    ("asked", "drawn"),
    [({"width": 64}, (64, 32)), ({"height": 64}, (128, 64)), ({"width": 64, "height": 64}, (64, 64))],
)
def test_one_side_given_keeps_the_proportions(stub, asked: dict[str, int], drawn: tuple[int, int]) -> None:
    """A picture of 200x100 pixels."""
    request = transform(image=pb.Image(data=png(200, 100)), sampling=pb.Sampling(steps=2), **asked)
    (image,) = images_of(stub, request)
    assert (image.image.width, image.image.height) == pixels(image.image).size == drawn


def test_the_same_request_gives_the_same_bytes(stub) -> None:
    """Alone, a picture is a function of its request."""
    request = generate(sampling=pb.Sampling(steps=4, seed=7))
    assert images_of(stub, request)[0].image.data == images_of(stub, request)[0].image.data


def test_image_i_is_the_single_image_of_seed_plus_i(stub) -> None:
    """At most 2 of 255 apart in any pixel."""
    several = images_of(stub, generate(sampling=pb.Sampling(steps=4, seed=7, image_count=3)))
    for image in several:
        (single,) = images_of(stub, generate(sampling=pb.Sampling(steps=4, seed=7 + image.index)))
        assert furthest(image.image, single.image) <= 2
    assert furthest(several[0].image, several[1].image) > 20


@pytest.mark.parametrize("kind", [pb.PREVIEW_KIND_PICTURE, pb.PREVIEW_KIND_LATENT, pb.PREVIEW_KIND_DECODED])
def test_previews_are_what_was_asked_for(stub, kind: int) -> None:
    """Pictures have the longer side asked for, latents the image's size over 8 in float16."""
    options = pb.PreviewOptions(kind=kind, every_n_steps=2, max_side=32)
    sampling = pb.Sampling(steps=5, seed=3, image_count=2)
    request = generate(width=128, height=64, sampling=sampling, output=pb.Output(preview=options))
    sent = 0
    for event in events_of(stub, request):
        if event.progress.step not in (2, 4):
            assert not event.progress.previews
            continue
        for index, preview in enumerate(event.progress.previews):
            sent += 1
            assert preview.image_index == index
            if kind == pb.PREVIEW_KIND_LATENT:
                latent = preview.latent
                assert (latent.channels, latent.height, latent.width) == (4, 8, 16)
                assert len(latent.data) == 2 * 4 * 8 * 16
            else:
                assert (preview.picture.width, preview.picture.height) == (32, 16)
                assert pixels(preview.picture).size == (32, 16)
    assert sent in (2, 4)  # a reader that is slow misses the first ones


@pytest.mark.parametrize("media_type", ["image/png", "image/jpeg", "image/webp"])
def test_images_hold_their_parameters(stub, media_type: str) -> None:
    """In every format, unless they are to be left out."""
    name, sha256 = lora_names()[0], lora_hashes()[0]
    common = {"loras": [pb.Lora(name=name, strength=0.5)], "sampling": pb.Sampling(steps=2, seed=9)}
    (told,) = images_of(stub, generate(output=pb.Output(media_type=media_type), **common))
    (plain,) = images_of(
        stub, generate(output=pb.Output(media_type=media_type, omit_metadata=True), **common)
    )
    text = parameters_of(told.image)
    assert text.startswith(f"a cat <lora:{name}:0.5>\nSteps: 2, Sampler: ")
    assert "Seed: 9, Size: 128x128, Model hash: " in text
    assert ", Model: embedded, " in text
    assert f'Lora hashes: "{name}: ' in text
    assert f'Lora SHA-256: "{name}: {sha256}"' in text
    assert parameters_of(plain.image) == ""
    assert furthest(told.image, plain.image) == 0


def parameters_of(image: pb.Image) -> str:
    with Image.open(BytesIO(image.data)) as opened:
        comment = opened.getexif().get_ifd(0x8769).get(0x9286, b"")
        return opened.info.get("parameters", comment.removeprefix(b"UNICODE\0").decode("utf-16-be"))


def test_a_lora_is_fused_once_and_reported(stub) -> None:
    """Name or hash, in any order: one set. Strength 0 is the base's picture."""
    (first, second), (hashed, _) = lora_names()[:2], lora_hashes()[:2]
    sampling = pb.Sampling(steps=2, seed=5)
    requests_ = [
        generate(sampling=sampling, loras=loras)
        for loras in (
            [pb.Lora(name=first, strength=0.625), pb.Lora(name=f"{second}.safetensors", strength=0.5)],
            [pb.Lora(name=second, strength=0.5), pb.Lora(sha256=hashed, strength=0.625)],
            [pb.Lora(name=first, strength=0)],
            [],
        )
    ]
    prepared = [events_of(stub, request)[1].prepared for request in requests_]
    assert [each.lora_set_cached for each in prepared[:2]] == [False, True]
    assert prepared[0].lora_set_id == prepared[1].lora_set_id != prepared[3].lora_set_id == ""
    report = prepared[0].loras[0]
    assert (report.sha256, report.strength, report.text_encoder_strength) == (hashed, 0.625, 0.625)
    assert sum(report.modules.values()) > 0
    assert report.relative_norm > 0
    one, two, zero, base = (images_of(stub, request)[0].image.data for request in requests_)
    assert pixels(pb.Image(data=one)).tobytes() == pixels(pb.Image(data=two)).tobytes()
    assert pixels(pb.Image(data=zero)).tobytes() == pixels(pb.Image(data=base)).tobytes()
    assert pixels(pb.Image(data=one)).tobytes() != pixels(pb.Image(data=base)).tobytes()


def test_what_a_caller_tells_a_proxy_is_not_believed(stub) -> None:
    """The set is what the files are, whatever `x-sdgrpc-lora-set` says; a kept job is found by its id."""
    loras = [pb.Lora(name=lora_names()[0], strength=0.375)]
    request = generate(sampling=pb.Sampling(steps=2, seed=5), loras=loras)
    ids = set()
    for told in ((), (("x-sdgrpc-lora-set", "0" * 32), ("x-sdgrpc-job", "nonsense"))):
        _, prepared, *_ = stub.Generate(request, metadata=told)
        ids.add(prepared.prepared.lora_set_id)
    assert len(ids) == 1
    assert ids != {""}


def test_black_mask_pixels_keep_the_input(stub) -> None:
    """Exactly; the white ones are drawn anew."""
    source = Image.effect_noise((128, 128), 90).convert("RGB")
    mask = Image.new("L", (128, 128), 0)
    mask.paste(255, (32, 32, 96, 96))
    files = []
    for image in (source, mask):
        buffer = BytesIO()
        image.save(buffer, "PNG")
        files.append(pb.Image(data=buffer.getvalue()))
    (result,) = images_of(stub, inpaint(image=files[0], mask=files[1]))
    difference = ImageChops.difference(pixels(result.image), source)
    assert difference.getbbox() == (32, 32, 96, 96)


def test_sizes_that_are_no_multiple_of_8_are_rounded_down(stub) -> None:
    """And the result has that size."""
    (result,) = images_of(stub, transform(image=pb.Image(data=png(103, 130))))
    assert pixels(result.image).size == (96, 128)


def test_health_and_reflection(channel: grpc.Channel) -> None:
    """A ready server serves, per service and as a whole, and describes itself."""
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ("", "sdgrpc.v1.DiffusionService"):
        status = stub.Check(health_pb2.HealthCheckRequest(service=service)).status  # type: ignore[attr-defined]
        assert status == health_pb2.HealthCheckResponse.SERVING
    asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    (answer,) = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(asked)
    names = {service.name for service in answer.list_services_response.service}
    assert "sdgrpc.v1.DiffusionService" in names
