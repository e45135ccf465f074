"""Messages to domain and back, where the contract test does not look."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sdgrpc import domain
from sdgrpc.api import codec
from sdgrpc.api.loras.block_weights import told
from sdgrpc.api.validate import read
from sdgrpc.domain import EncodedImage, LatentArray, LoraReport, MaskOptions, Picture, Preview, TaskKind
from sdgrpc.v1 import diffusion_pb2 as pb
from tests.support.api import generate, inpaint, make_settings, transform
from tests.support.engine import make_model

PICTURE = Picture(71, 130, 3, b"")


def test_every_enum_member_has_its_counterpart() -> None:
    """Domain and contract name the same schedulers, spacings and previews."""
    for ours, theirs, prefix in (
        (domain.Scheduler, pb.Scheduler, "SCHEDULER_"),
        (domain.SigmaSpacing, pb.SigmaSpacing, "SIGMA_SPACING_"),
        (domain.PreviewKind, pb.PreviewKind, "PREVIEW_KIND_"),
        (domain.ResizeMode, pb.ResizeMode, "RESIZE_MODE_"),
    ):
        names = {name.removeprefix(prefix) for name in theirs.keys()}  # noqa: SIM118 - not a mapping
        assert names - {"UNSPECIFIED"} == {member.name for member in ours} - {"NONE"}


@pytest.mark.parametrize(
    ("request_", "image", "size", "strength", "kind"),
    [
        (generate(), None, (512, 768), 1.0, TaskKind.GENERATE),
        (generate(width=64), None, (64, 768), 1.0, TaskKind.GENERATE),
        (transform(), PICTURE, (64, 128), 0.8, TaskKind.TRANSFORM),
        (transform(height=256, strength=0.25), PICTURE, (136, 256), 0.25, TaskKind.TRANSFORM),
        (inpaint(), PICTURE, (64, 128), 1.0, TaskKind.INPAINT),
        (inpaint(strength=0), PICTURE, (64, 128), 0.0, TaskKind.INPAINT),
    ],
)
def test_defaults_by_kind(request_, image, size, strength, kind) -> None:
    """Sizes default to the model's or the input's, strengths to what the contract says."""
    task = codec.task(request_, make_model(width=512, height=768), image, None)
    assert ((task.width, task.height), task.strength, task.kind) == (size, strength, kind)


@pytest.mark.parametrize(
    ("request_", "keeps"),
    [
        (inpaint(), True),
        (inpaint(width=64), False),
        (inpaint(height=64), False),
        (transform(), False),
        (generate(), False),
    ],
)
def test_an_inpainting_without_a_size_keeps_its_inputs(request_, keeps: bool) -> None:
    """Other kinds never do: their whole picture is drawn."""
    image = None if isinstance(request_, pb.GenerateRequest) else PICTURE
    assert codec.task(request_, make_model(width=512, height=768), image, None).keeps_size is keeps


@pytest.mark.parametrize(
    ("image", "asked", "size"),
    [
        ((200, 100), {"width": 64}, (64, 32)),
        ((200, 100), {"height": 64}, (128, 64)),
        ((100, 200), {"width": 64}, (64, 128)),
        ((200, 100), {"width": 72}, (72, 40)),  # 36 lies between 32 and 40, and goes up
        ((301, 100), {"width": 104}, (104, 32)),  # 34.55
        ((1000, 10), {"width": 512}, (512, 8)),  # 5.12
        ((200, 100), {"width": 64, "height": 64}, (64, 64)),
        ((203, 101), {}, (200, 96)),
    ],
)
def test_one_side_given_keeps_the_proportions(image, asked: dict, size: tuple[int, int]) -> None:
    """The other is rounded to the nearest multiple of 8, and is never nothing."""
    picture = Picture(image[0], image[1], 3, b"")
    for request in (transform(**asked), inpaint(**asked)):
        assert codec.size(request, make_model(width=512, height=768), picture) == size


def test_resize_modes() -> None:
    """Unspecified is STRETCH; Generate, which has no such field, too."""
    modes = [codec.resize_mode(request) for request in (generate(), transform(), inpaint(resize_mode=3))]
    assert modes == [domain.ResizeMode.STRETCH, domain.ResizeMode.STRETCH, domain.ResizeMode.PAD]


def test_strengths_by_block() -> None:
    """As they were written, as decimals, with what they mean for the model; sent back as they came."""
    messages = [
        pb.BlockWeights(values=[0.7, 0.1, 1, 1, 1]),
        pb.BlockWeights(preset="NONE"),
        pb.BlockWeights(blocks={"unet.mid": 0.3, "text_encoder": 0.7}),
    ]
    refs = [codec.lora_ref(pb.Lora(name="a", block_weights=one), "embedded") for one in messages]
    assert [str(ref.block_weights) for ref in refs] == [
        "0.7,0.1,1,1,1",
        "NONE",
        "text_encoder*0.7,unet.mid*0.3",
    ]
    assert refs[2].block_factors == (("text_encoder", 0.7), ("unet.mid", 0.3))
    assert [told(ref.block_weights) for ref in refs] == messages
    assert told(codec.lora_ref(pb.Lora(name="a"), "embedded").block_weights) is None


def test_the_steps_of_a_lora() -> None:
    """Unset they are all; shares are their shortest decimals."""
    refs = [
        codec.lora_ref(pb.Lora(name="a", **shares), "sd15") for shares in ({}, {"start": 0.1, "end": 0.7})
    ]
    assert [(ref.start, ref.end) for ref in refs] == [(0.0, 1.0), (0.1, 0.7)]


def test_a_strength_grid() -> None:
    """A strength for each picture, which is the text encoders' too unless they have their own."""
    led = codec.lora_ref(pb.Lora(name="a", strength_grid=[0, 0.7]), "sd15")
    assert led.strength_grid == ((0.0, 0.0), (0.7, 0.7))
    fixed = codec.lora_ref(pb.Lora(name="a", strength_grid=[0, 0.7], text_encoder_strength=0.3), "sd15")
    assert fixed.strength_grid == ((0.0, 0.3), (0.7, 0.3))
    for count in (0, 1, 2):
        request = generate(loras=[pb.Lora(name="a", strength_grid=[0, 1])])
        request.sampling.image_count = count
        assert read(request, make_settings(), [make_model()]).sampling.image_count == 2
    image = domain.ImageReady(1, 7, EncodedImage(b"x", "image/png", 8, 8), 0.25)
    assert codec.job_event(image, "r", 1).image.lora_strength == 0.25
    assert not codec.job_event(replace(image, lora_strength=None), "r", 1).image.HasField("lora_strength")


def test_lora_strengths() -> None:
    """Unset is 1, the text encoders' is the other one's; hashes are in lower case."""
    refs = [
        codec.lora_ref(message, "embedded")
        for message in (
            pb.Lora(name="a"),
            pb.Lora(name="a", strength=0.3),
            pb.Lora(name="a", strength=0.3, text_encoder_strength=0),
            pb.Lora(sha256="AB" * 32, strict=True),
            pb.Lora(safetensors=b"x"),
        )
    ]
    strengths = [(ref.strength, ref.text_encoder_strength) for ref in refs]
    assert strengths == [(1, 1), (0.3, 0.3), (0.3, 0), (1, 1), (1, 1)]
    assert (refs[3].sha256, refs[3].strict, refs[4].content) == ("ab" * 32, True, b"x")


def test_mask_options() -> None:
    """No padding is not the same as a padding of 0."""
    options = [
        codec.task(inpaint(mask_options=message), make_model(), PICTURE, None).mask_options
        for message in (None, pb.MaskOptions(blur=1.1), pb.MaskOptions(crop_padding=0))
    ]
    assert options == [MaskOptions(), MaskOptions(1.1, None), MaskOptions(0.0, 0)]


@pytest.mark.parametrize(("asked", "given"), [(0, 0), (64, 64), (512, 256)])
def test_previews_are_never_larger_than_the_image(asked: int, given: int) -> None:
    """The longer side counts."""
    message = generate(
        width=64, height=256, output=pb.Output(preview=pb.PreviewOptions(kind=1, max_side=asked))
    )
    assert codec.task(message, make_model(), None, None).output.preview.max_side == given


def test_a_request_without_an_id_gets_one() -> None:
    """And another one each time."""
    ids = {codec.task(generate(), make_model(), None, None).request_id for _ in range(3)}
    assert len(ids) == 3


def test_prepared_carries_the_reports() -> None:
    """Every field of a report arrives."""
    report = LoraReport("a", "b", ("lora", "dora"), {"unet": 3}, 0.5, 0.25, 0.75, 2, ("x", "y"), ("careful",))
    report = replace(report, block_weights=domain.BlockWeights(preset="OUTD"))
    report = replace(report, steps=(domain.StepRange(2, 4),), start=0.25, end=0.75)
    prepared = codec.job_event(domain.Prepared((report,), "id", True, 1.5), "r", 1).prepared
    assert (prepared.lora_set_id, prepared.lora_set_cached) == ("id", True)
    assert prepared.fuse_duration.ToTimedelta().total_seconds() == 1.5
    assert prepared.loras[0] == pb.LoraReport(
        name="a",
        sha256="b",
        algorithms=["lora", "dora"],
        modules={"unet": 3},
        unmatched_tensors=2,
        unmatched_examples=["x", "y"],
        relative_norm=0.5,
        strength=0.25,
        text_encoder_strength=0.75,
        warnings=["careful"],
        block_weights=pb.BlockWeights(preset="OUTD"),
        steps=[pb.StepRange(first=2, last=4)],
        start=0.25,
        end=0.75,
    )
    assert {field.name for field, _ in prepared.loras[0].ListFields()} == {
        field.name for field in pb.LoraReport.DESCRIPTOR.fields
    }


def test_progress_carries_previews_and_times() -> None:
    """Pictures and latents both; durations count from 0."""
    previews = (
        Preview(0, EncodedImage(b"png", "image/png", 8, 16)),
        Preview(1, LatentArray(4, 2, 1, b"16 bytes of data")),
    )
    event = codec.job_event(domain.Progress(2, 3, 501.5, 1.25, -0.5, previews), "r", 3)
    assert (event.request_id, event.sequence) == ("r", 3)
    progress = event.progress
    assert (progress.step, progress.step_count, progress.timestep) == (2, 3, 501.5)
    assert (progress.elapsed.seconds, progress.elapsed.nanos) == (1, 250_000_000)
    assert (progress.remaining.seconds, progress.remaining.nanos) == (0, 0)
    assert progress.previews[0].picture == pb.Image(data=b"png", media_type="image/png", width=8, height=16)
    assert progress.previews[1].image_index == 1
    assert progress.previews[1].latent == pb.Latent(channels=4, height=2, width=1, data=b"16 bytes of data")


def test_finished_tells_where_the_time_went() -> None:
    """Each phase under its name."""
    finished = codec.job_event(domain.Finished(1.0, 2.0, 3.0, 4.0, 5, 6), "r", 9).finished
    seconds = [getattr(finished, name).seconds for name in ("queued", "prepared", "denoised", "decoded")]
    assert (seconds, finished.largest_batch, finished.unet_calls) == ([1, 2, 3, 4], 5, 6)
