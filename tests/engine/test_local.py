"""The engine on this machine's device, drawing with a tiny random model."""

from __future__ import annotations

import asyncio
import io
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from sdgrpc.diffusion.checkpoints.loading import load
from sdgrpc.diffusion.pictures import inpainting
from sdgrpc.domain import (
    Accepted,
    EncodedImage,
    Finished,
    GuidanceInterval,
    ImageReady,
    LatentArray,
    LoraRef,
    MaskOptions,
    Output,
    Prepared,
    PreviewKind,
    PreviewOptions,
    Progress,
    Scheduler,
    StepReuse,
    Task,
    TaskKind,
)
from sdgrpc.engine.local import LocalEngine
from sdgrpc.engine.models.warm_up import warm_up_task
from sdgrpc.engine.options import EngineOptions
from sdgrpc.errors import LoraNotFound, ModelError, ModelNotFound
from sdgrpc.lora.store.library import LoraLibrary
from tests.support.models import save_model
from tests.support.tasks import box_mask, gradient, pixels_of, task

ONE = LoraRef(0.8, 0.8, name="one")
TWO = LoraRef(0.5, 0.5, name="two")


async def run(engine, asked: Task) -> list:
    return [event async for event in engine.submit(asked)]


async def images_of(engine, asked: Task) -> list[bytes]:
    return [event.image.data for event in await run(engine, asked) if isinstance(event, ImageReady)]


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


@pytest.mark.parametrize("kind", list(TaskKind))
async def test_every_kind_of_task_is_drawn(open_tiny, kind):
    """The events follow the contract's order, with one progress per step that runs."""
    async with open_tiny() as engine:
        asked = task(kind, steps=5, image_count=2)
        events = await run(engine, asked)
    kinds = [type(event) for event in events]
    assert kinds[:2] == [Accepted, Prepared]
    assert kinds[-1] is Finished
    assert [e.step for e in events if isinstance(e, Progress)] == list(range(1, asked.step_count + 1))
    assert [(e.index, e.seed) for e in events if isinstance(e, ImageReady)] == [(0, 7), (1, 8)]


@pytest.mark.parametrize("scheduler", Scheduler)
@pytest.mark.parametrize("kind", [TaskKind.TRANSFORM, TaskKind.INPAINT])
async def test_strength_zero_asks_nothing_of_the_unet(open_tiny, tiny_model, monkeypatch, kind, scheduler):
    """No step is announced, and none is run."""
    monkeypatch.setattr(tiny_model.unet, "forward", lambda *_, **__: pytest.fail("asked"))
    async with open_tiny() as engine:
        asked = task(kind, scheduler=scheduler, strength=0.0)
        assert asked.step_count == 0
        kinds = [type(event) for event in await run(engine, asked)]
    assert kinds == [Accepted, Prepared, ImageReady, Finished]


async def test_the_same_request_gives_the_same_bytes(open_tiny):
    """Twice alone is twice the same file."""
    async with open_tiny() as engine:
        assert await images_of(engine, task()) == await images_of(engine, task())


async def test_image_i_is_the_single_image_of_seed_plus_i(open_tiny):
    """Several images of a request equal the single ones within 2 of 255 in any pixel."""
    async with open_tiny() as engine:
        together = await images_of(engine, task(image_count=3))
        alone = [(await images_of(engine, task(seed=7 + i)))[0] for i in range(3)]
    for one, other in zip(together, alone, strict=True):
        assert np.abs(pixels(one) - pixels(other)).max() <= 2


async def test_jobs_that_share_calls_get_their_own_pictures(open_tiny):
    """Eight jobs at once draw what each draws alone, within 2 of 255, in fewer calls."""
    asked = [task(seed=seed, prompt=f"cat {seed}") for seed in range(8)]
    async with open_tiny(max_rows_per_call=16) as engine:
        alone = [(await images_of(engine, one))[0] for one in asked]
        batched = await asyncio.gather(*(run(engine, one) for one in asked))
    assert max(events[-1].largest_batch for events in batched) > 1
    for events, expected in zip(batched, alone, strict=True):
        image = next(event.image.data for event in events if isinstance(event, ImageReady))
        assert np.abs(pixels(image) - pixels(expected)).max() <= 2


async def test_without_batching_nothing_depends_on_the_neighbours(open_tiny):
    """With batching off, jobs at once give the very bytes that each gives alone."""
    asked = [task(seed=seed) for seed in range(3)]
    async with open_tiny(batching=False) as engine:
        alone = [await images_of(engine, one) for one in asked]
        together = await asyncio.gather(*(images_of(engine, one) for one in asked))
    assert alone == together


async def test_a_set_is_fused_once_and_the_base_comes_back_bit_for_bit(open_tiny):
    """Ten requests of one set fuse once; afterwards the base draws what it drew before."""
    async with open_tiny() as engine:
        base = await images_of(engine, task())
        runs = [await run(engine, task(loras=(ONE,))) for _ in range(10)]
        assert [r[1].lora_set_cached for r in runs] == [False] + [True] * 9
        assert engine.status().fuse_count == 1
        assert {r[1].lora_set_id for r in runs} != {""}
        changed = next(e.image.data for e in runs[0] if isinstance(e, ImageReady))
        assert changed != base[0]
        await run(engine, task(loras=(TWO,)))
        assert await images_of(engine, task()) == base


async def test_the_order_of_loras_does_not_matter(open_tiny):
    """The same set in another order is the same set and the same picture."""
    async with open_tiny() as engine:
        there = await run(engine, task(loras=(ONE, TWO)))
        back = await run(engine, task(loras=(TWO, ONE)))
        assert there[1].lora_set_id == back[1].lora_set_id
        assert back[1].lora_set_cached
        image = [next(e.image.data for e in r if isinstance(e, ImageReady)) for r in (there, back)]
        assert (pixels(image[0]) == pixels(image[1])).all()


async def test_strength_zero_is_the_base(open_tiny):
    """A LoRA without strength changes no pixel and makes no set."""
    async with open_tiny() as engine:
        base = await images_of(engine, task(output=Output(omit_metadata=True)))
        off = await run(
            engine,
            task(
                loras=(replace(ONE, strength=0.0, text_encoder_strength=0.0),),
                output=Output(omit_metadata=True),
            ),
        )
        assert off[1].lora_set_id == ""
        assert [e.image.data for e in off if isinstance(e, ImageReady)] == base


async def test_two_at_once_fuse_once(open_tiny):
    """Jobs that ask for the same missing set at the same time cause one fuse."""
    async with open_tiny() as engine:
        await asyncio.gather(*(run(engine, task(loras=(ONE, TWO), seed=seed)) for seed in range(4)))
        assert engine.status().fuse_count == 1


async def test_jobs_of_different_sets_do_not_mix(open_tiny):
    """Jobs with other sets, or none, run interleaved and each draws its own picture."""
    asked = [task(), task(loras=(ONE,)), task(loras=(TWO,)), task(loras=(ONE, TWO))]
    async with open_tiny(max_wait_calls=1) as engine:
        alone = [await images_of(engine, one) for one in asked]
        together = await asyncio.gather(*(images_of(engine, one) for one in asked))
    assert alone == together
    assert len({image for images in alone for image in images}) == 4


@pytest.mark.parametrize("kind", [PreviewKind.PICTURE, PreviewKind.LATENT, PreviewKind.DECODED])
async def test_previews(open_tiny, kind):
    """Each step but the last has one preview per image, unless the reader is slow."""
    async with open_tiny() as engine:
        asked = task(steps=4, image_count=2, output=Output(preview=PreviewOptions(kind)))
        progress = [event async for event in engine.submit(asked) if isinstance(event, Progress)]
    assert progress[-1].previews == ()
    seen = [event.previews for event in progress if event.previews]
    assert seen
    for previews in seen:
        assert [preview.image_index for preview in previews] == [0, 1]
        content = previews[0].content
        if kind is PreviewKind.LATENT:
            assert isinstance(content, LatentArray)
            assert len(content.data) == content.channels * content.height * content.width * 2
        else:
            assert isinstance(content, EncodedImage)
            assert Image.open(io.BytesIO(content.data)).size == (8, 8)


async def test_black_mask_pixels_keep_the_input(open_tiny):
    """Where the mask is black the result equals the input, pixel for pixel."""
    async with open_tiny() as engine:
        asked = task(TaskKind.INPAINT)
        result = pixels((await images_of(engine, asked))[0])
    kept = pixels_of(asked.mask)[:, :, 0] == 0
    known = pixels_of(asked.image).astype(int)
    assert (result[kept] == known[kept]).all()
    assert (result[~kept] != known[~kept]).any()


@pytest.mark.parametrize("options", [MaskOptions(blur=2.0), MaskOptions(blur=2.0, crop_padding=4)])
async def test_a_mask_is_prepared_once_for_all_pictures(open_tiny, monkeypatch, options):
    """For four pictures mask and input are read, blurred and cropped once; each is pasted into them."""
    made = Counter()
    for module, name in ((inpainting, "_inputs"), (inpainting, "crop_box"), (Image.Image, "filter")):
        original = getattr(module, name)

        def counted(*args, name=name, original=original):
            made[name] += 1
            return original(*args)

        monkeypatch.setattr(module, name, counted)
    paste = inpainting.Region.paste
    monkeypatch.setattr(inpainting.Region, "paste", lambda *args: (made.update(["paste"]), paste(*args))[1])
    async with open_tiny() as engine:
        asked = task(TaskKind.INPAINT, image_count=4, mask_options=options)
        assert len(await images_of(engine, asked)) == 4
    assert made == {"_inputs": 1, "crop_box": 1, "filter": 1, "paste": 4}


async def test_closing_the_stream_cancels_the_job(open_tiny):
    """A reader that goes away ends its job; nothing stays behind and the engine draws on."""
    async with open_tiny() as engine:
        stream = engine.submit(task(steps=150, loras=(ONE,)))
        async for event in stream:
            if isinstance(event, Progress):
                break
        await stream.aclose()
        await run(engine, task())
        status = engine.status()
        assert (status.running, status.queued, status.jobs_finished) == (0, 0, 1)


async def test_unknown_names_are_refused_before_the_job_is_accepted(open_tiny):
    """An unknown LoRA or model fails at the door."""
    async with open_tiny() as engine:
        with pytest.raises(LoraNotFound, match="'onee'"):
            await run(engine, task(loras=(replace(ONE, name="onee"),)))
        with pytest.raises(ModelNotFound, match="there are: tiny"):
            await run(engine, replace(task(), model="other"))


async def test_latents_that_overflowed_are_an_error_not_a_black_picture(open_tiny, tiny_model, monkeypatch):
    """A prediction of NaN ends the job with advice; the next job is drawn."""
    async with open_tiny() as engine:
        with monkeypatch.context() as patch:
            patch.setattr(tiny_model.unet, "forward", lambda sample, *_, **__: (sample * torch.nan,))
            with pytest.raises(ModelError, match="float32"):
                await run(engine, task())
        assert await images_of(engine, task())


@pytest.mark.parametrize("kind", [PreviewKind.NONE, PreviewKind.DECODED])
async def test_a_vae_that_makes_nan_is_an_error_that_names_the_model(open_tiny, tiny_model, kind):
    """One NaN in its last bias would leave out a colour, of a preview as of the picture; then all is well."""
    bias = tiny_model.vae.decoder.conv_out.bias
    kept = bias.detach().clone()
    asked = task(output=Output(preview=PreviewOptions(kind)), steps=3)
    async with open_tiny() as engine:
        with torch.inference_mode():
            bias[0] = torch.nan
        try:
            with pytest.raises(
                ModelError, match="'tiny': its VAE makes numbers that are not finite"
            ) as caught:
                await run(engine, asked)
        finally:
            with torch.inference_mode():
                bias.copy_(kept)
        assert caught.value.reason == "MODEL_UNUSABLE"
        assert await images_of(engine, asked)


async def test_status_counts(open_tiny, tiny_model):
    """After a client's job the counters say so; the warm-up makes the engine ready and is none of them."""
    async with open_tiny() as engine:
        assert not engine.status().ready
        await engine.warm_up()
        status = engine.status()
        assert status.ready
        assert status.jobs_finished == 0
        assert status.rows_per_call == 2  # one picture, and what it must not show
        assert status.steps_per_second > 0
        assert (status.lora_sets, status.lora_set_bytes, status.resident_sets) == (0, 0, ())
        events = await run(engine, task(loras=(ONE,)))
        status = engine.status()
    prepared = next(event for event in events if isinstance(event, Prepared))
    (resident,) = status.resident_sets
    assert (status.jobs_finished, status.running, status.queued, status.fuse_count) == (1, 0, 0, 1)
    assert (resident.set_id, resident.model, resident.in_use) == (prepared.lora_set_id, "tiny", False)
    assert (status.lora_sets, status.lora_set_bytes) == (1, resident.size_bytes)
    touched = [
        weight.nbytes
        for network in tiny_model.lora_components().values()
        for name, weight in network.named_parameters()
        if name.endswith(("to_q.weight", "q_proj.weight"))
    ]
    assert status.lora_set_bytes == sum(touched) > 0


async def test_model_states(open_tiny, tiny_model):
    """A loaded model is resident, with its UNet's dtype and the bytes of its weights."""
    async with open_tiny() as engine:
        (state,) = engine.model_states()
    assert (state.info, state.dtype, state.resident) == (tiny_model.info, "float32", True)
    networks = (tiny_model.unet, tiny_model.vae, tiny_model.text_encoders["text_encoder"])
    weights = sum(parameter.nbytes for network in networks for parameter in network.parameters())
    assert weights <= state.size_bytes <= 1.01 * weights  # small buffers may count


def test_the_warm_up_is_small(tiny_model):
    """One step, at most 256 pixels."""
    asked = warm_up_task(replace(tiny_model.info, width=1024, height=768))
    assert (asked.width, asked.height, asked.step_count) == (256, 256, 1)


async def test_a_closed_engine_leaves_the_model_as_it_was(open_tiny, tiny_model):
    """The weights of the last job's set are gone with it: another engine starts from the pristine ones."""
    components = tiny_model.lora_components()
    before = {name: [*module.parameters()] for name, module in components.items()}
    async with open_tiny() as engine:
        await run(engine, task(loras=(ONE,)))
    for name, module in components.items():
        assert all(one is other for one, other in zip(module.parameters(), before[name], strict=True))


async def test_accepted_says_the_size_that_is_drawn_and_a_crop_keeps_the_inputs(open_tiny):
    """With `crop_padding` the model draws in the task's size, and the result has the size of the input."""
    asked = task(
        TaskKind.INPAINT,
        image=gradient(96, 80),
        mask=box_mask(96, 80),
        mask_options=MaskOptions(crop_padding=4),
    )
    async with open_tiny() as engine:
        events = await run(engine, asked)
    accepted, image = events[0], next(e.image for e in events if isinstance(e, ImageReady))
    assert (accepted.task.width, accepted.task.height) == (64, 64)
    assert (image.width, image.height) == (96, 80)


async def test_an_inpainting_model_warms_up_and_keeps_what_is_black(tmp_path):
    """A UNet of 9 channels is served like any other, and at sizes that are no multiples of 8."""
    model = load(
        "nine", save_model(tmp_path, inpainting=True), device=torch.device("cpu"), dtype=torch.float32
    )
    asked = task(
        TaskKind.INPAINT,
        model="nine",
        image=gradient(103, 82),
        mask=box_mask(103, 82, (40, 30, 60, 50)),
        width=96,
        height=80,
        keeps_size=True,
    )
    engine = LocalEngine([model], LoraLibrary([]), EngineOptions())
    try:
        await engine.warm_up()
        (image,) = await images_of(engine, asked)
        with pytest.raises(ModelError, match="'nine' is an inpainting model"):
            await run(engine, task(model="nine"))
    finally:
        await engine.close()
    changed = (pixels(image) != pixels_of(asked.image)).any(axis=2)
    assert changed[30:50, 40:60].mean() > 0.9
    changed[30:50, 40:60] = False
    assert not changed.any()


async def test_less_work_is_counted(open_tiny):
    """One call a step, fewer with forecasts, whole ones for steps that are not guided; every step is told."""
    plain = task(steps=10)
    reuse = task(steps=10, step_reuse=StepReuse(2), guidance_interval=GuidanceInterval(0.2, 0.7))
    async with open_tiny() as engine:
        whole, less = await run(engine, plain), await run(engine, reuse)
    assert (whole[-1].unet_calls, less[-1].unet_calls) == (10, 9), "0 and 1; 2, 3, 4, 6; 7, 8 and 9"
    assert [event.step for event in less if isinstance(event, Progress)] == list(range(1, 11))
    accepted = less[0]
    assert isinstance(accepted, Accepted)
    assert accepted.task.sampling == reuse.sampling
