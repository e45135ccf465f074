"""Several models with fewer places in memory: real tiny models that come and go."""

from __future__ import annotations

import asyncio
import threading
import weakref
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sdgrpc.diffusion.checkpoints.loading import open_model
from sdgrpc.domain import (
    Finished,
    ImageReady,
    LoraQuery,
    LoraRef,
    Output,
    PreviewKind,
    PreviewOptions,
    Progress,
)
from sdgrpc.engine.local import LocalEngine
from sdgrpc.engine.models.served_models import Loadable
from sdgrpc.engine.opening import loadable, open_engine
from sdgrpc.engine.options import EngineOptions
from sdgrpc.errors import ModelError, ModelNotFound
from sdgrpc.lora.store.library import LoraLibrary
from sdgrpc.settings import Settings
from tests.engine.test_local import images_of, run
from tests.support.models import save_model
from tests.support.tasks import task

CPU = torch.device("cpu")
ONE = LoraRef(0.8, 0.8, name="one")
BARE = Output(omit_metadata=True)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Two models of the same structure with weights of their own."""
    tmp = tmp_path_factory.mktemp("two")
    return {name: save_model(tmp / name, seed=seed) for seed, name in enumerate(("a", "b"))}


def opened(name: str, folder: Path, **changes) -> Loadable:
    return replace(loadable(open_model(name, folder), CPU, None), **changes)


@asynccontextmanager
async def engine_of(*models: Loadable, loras: Path | None = None, resident_models: int = 1):
    options = EngineOptions(resident_models=resident_models)
    engine = LocalEngine(models, LoraLibrary([loras] if loras else []), options)
    try:
        yield engine
    finally:
        await engine.close()


def asked(model: str, **changes):
    return task(model=model, output=BARE, **changes)


def residents(engine: LocalEngine) -> list[str]:
    return [state.info.name for state in engine.model_states() if state.resident]


def sets_of(engine: LocalEngine, name: str) -> weakref.ref:
    """What holds every pristine weight and every fused one of a model in memory."""
    return weakref.ref(engine._models.pool.resident()[name].sets)


async def alone(folders: dict[str, Path], name: str, lora_dir: Path, **changes) -> list[bytes]:
    """What a server with this model only draws."""
    async with engine_of(opened(name, folders[name]), loras=lora_dir) as engine:
        return await images_of(engine, asked(name, **changes))


async def test_models_take_turns_and_each_draws_its_own_pictures(folders, lora_dir):
    """Jobs of two models, with and without a LoRA, one place: every picture is that of the model alone."""
    for loras in ((), (ONE,)):
        expected = {name: await alone(folders, name, lora_dir, loras=loras) for name in "ab"}
        assert expected["a"] != expected["b"]
        async with engine_of(*(opened(n, folders[n]) for n in "ab"), loras=lora_dir) as engine:
            for name in "abab":
                assert await images_of(engine, asked(name, loras=loras)) == expected[name]
                assert residents(engine) == [name]
            together = await asyncio.gather(*(images_of(engine, asked(n, loras=loras)) for n in "ba"))
            assert together == [expected["b"], expected["a"]]


async def test_states_tell_what_is_in_memory(folders):
    """Before the first load without size; then with it, in memory or not any more."""
    async with engine_of(*(opened(name, folders[name]) for name in "ab")) as engine:
        assert [(s.resident, s.size_bytes, s.dtype) for s in engine.model_states()] == [
            (False, 0, "float32")
        ] * 2
        await engine.warm_up()
        first, second = engine.model_states()
        assert (first.resident, second.resident, second.size_bytes) == (True, False, 0)
        await run(engine, asked("b"))
        gone, second = engine.model_states()
        assert (gone.resident, gone.size_bytes) == (False, first.size_bytes)
        assert second.resident
        assert second.size_bytes == first.size_bytes > 0


async def test_two_places_hold_two_models(folders):
    """Both are loaded at the start and stay."""
    models = [opened(name, folders[name]) for name in "ab"]
    async with engine_of(*models, resident_models=2) as engine:
        await engine.warm_up()
        assert residents(engine) == ["a", "b"]
        await run(engine, asked("a"))
        assert residents(engine) == ["a", "b"]


async def test_the_memory_of_a_model_that_was_put_out_is_free(folders, lora_dir):
    """Its weights and its fused sets are gone before the next is read; the set is fused anew later."""
    weights: list[weakref.ref] = []
    source = opened("a", folders["a"])

    def load_a():
        model = source.load()
        networks = model.lora_components().values()
        weights[:] = [weakref.ref(one) for network in networks for one in network.parameters()]
        return model

    def load_b():
        alive.append(sum(ref() is not None for ref in weights))
        return other.load()

    alive: list[int] = []
    other = opened("b", folders["b"])
    models = replace(source, load=load_a), replace(other, load=load_b)
    async with engine_of(*models, loras=lora_dir) as engine:
        await run(engine, asked("a", loras=(ONE,)))
        assert weights
        assert all(ref() is not None for ref in weights)
        assert [one.model for one in engine.status().resident_sets] == ["a"]
        weights.append(sets_of(engine, "a"))
        await run(engine, asked("b"))
        assert alive == [0]
        status = engine.status()
        assert (status.lora_sets, status.lora_set_bytes, status.fuse_count) == (0, 0, 1)
        events = await run(engine, asked("a", loras=(ONE,)))
        assert not events[1].lora_set_cached
        assert engine.status().fuse_count == 2


async def test_a_preview_that_is_read_late_is_still_drawn(folders):
    """Its reader comes after the model was put out: only the decoder stayed for it."""
    models = [opened(name, folders[name]) for name in "ab"]
    async with engine_of(*models) as engine:
        output = Output(preview=PreviewOptions(PreviewKind.DECODED))
        stream = engine.submit(replace(asked("a", steps=3), output=output))
        while not residents(engine):
            await anext(stream)
        sets = sets_of(engine, "a")
        await run(engine, asked("b"))
        assert residents(engine) == ["b"]
        assert sets() is None
        events = [event async for event in stream]
        assert isinstance(events[-1], Finished)
        assert any(event.previews for event in events if isinstance(event, Progress))


async def test_steps_go_on_while_another_model_is_loaded(folders):
    """With two places, jobs of the model that is there are drawn to their end during the other's load."""
    loading, may_go_on = threading.Event(), threading.Event()
    other = opened("b", folders["b"])

    def load_slowly():
        loading.set()
        assert may_go_on.wait(60)
        return other.load()

    async with engine_of(
        opened("a", folders["a"]), replace(other, load=load_slowly), resident_models=2
    ) as engine:
        await run(engine, asked("a"))
        slow = asyncio.create_task(images_of(engine, asked("b")))
        assert await asyncio.to_thread(loading.wait, 60)
        assert await images_of(engine, asked("a"))
        assert residents(engine) == ["a"]
        assert not slow.done()
        may_go_on.set()
        assert await slow


async def test_a_model_that_cannot_be_loaded_fails_alone(folders, tmp_path):
    """Its files were changed after the start: its jobs are told so every time, and the other is drawn."""
    broken = save_model(tmp_path / "broken", seed=5)
    async with engine_of(opened("a", folders["a"]), opened("broken", broken)) as engine:
        expected = await images_of(engine, asked("a"))
        save_model(broken, seed=6, width=64)
        for _ in range(2):
            with pytest.raises(ModelError, match="changed after the model broken was opened"):
                await run(engine, asked("broken"))
            with pytest.raises(ModelError, match="changed after"):
                await engine.prepare_loras("broken", ())
            assert await images_of(engine, asked("a")) == expected


async def test_the_catalog_knows_models_that_are_not_loaded(folders, lora_dir):
    """Files are judged and described against them without a load; an unknown one is named."""
    async with engine_of(*(opened(n, folders[n]) for n in "ab"), loras=lora_dir) as engine:
        query = LoraQuery(model="b", limit=10)
        assert [info.fits for info in (await engine.list_loras(query)).loras] == [True, True]
        assert (await engine.get_lora(ONE, "b", include_modules=True)).info.fits
        with pytest.raises(ModelNotFound, match="there are: a, b"):
            await engine.prepare_loras("c", (ONE,))
        assert residents(engine) == []


async def test_preparing_a_set_loads_its_model_first(folders, lora_dir):
    """The set is there when the job comes, and the model was let go: another can take its place."""
    async with engine_of(*(opened(n, folders[n]) for n in "ab"), loras=lora_dir) as engine:
        await run(engine, asked("a"))
        prepared = await engine.prepare_loras("b", (ONE,))
        assert residents(engine) == ["b"]
        events = await run(engine, asked("b", loras=(ONE,)))
        assert events[1].lora_set_cached
        assert events[1].lora_set_id == prepared.lora_set_id
        assert any(isinstance(event, ImageReady) for event in await run(engine, asked("a")))


def test_the_start_opens_every_model_and_loads_the_first(folders, tmp_path):
    """A wrong path fails at the start, though its model would not be loaded yet."""
    sources = [f"{name}={folder}" for name, folder in folders.items()]
    engine = open_engine(Settings(model=sources, device="cpu"))
    try:
        assert residents(engine) == ["a"]
        assert [info.name for info in engine.models] == ["a", "b"]
    finally:
        asyncio.run(engine.close())
    with pytest.raises(ModelError, match="nowhere"):
        open_engine(Settings(model=[sources[0], str(tmp_path / "nowhere")], device="cpu"))


def test_a_first_model_that_cannot_be_loaded_stops_the_start(folders, monkeypatch):
    """The failure is the loader's own, and no thread is left behind."""
    monkeypatch.setattr(
        "sdgrpc.diffusion.checkpoints.loading.OpenModel.load",
        lambda *_, **__: (_ for _ in ()).throw(ModelError("no memory")),
    )
    before = set(threading.enumerate())
    with pytest.raises(ModelError, match="no memory"):
        open_engine(Settings(model=[f"a={folders['a']}"], device="cpu"))
    started = set(threading.enumerate()) - before
    assert not [one.name for one in started if one.name.startswith("sdgrpc-")]


def broken(name: str, folder: Path, fault: str) -> Loadable:
    """A model whose UNet raises, or has a weight that is NaN."""
    source = opened(name, folder)

    def load():
        model = source.load()
        if fault == "nan":
            with torch.inference_mode():
                model.unet.conv_out.bias[0] = torch.nan
        else:
            model.unet.forward = lambda *_, **__: model.unet.no_such_part
        return model

    return replace(source, load=load)


REASONS = {"nan": "'b': the latents are not finite", "raises": "'b' failed its first step"}


@pytest.mark.parametrize("fault", REASONS)
async def test_a_model_that_fails_its_first_step_is_refused_and_the_others_are_served(
    folders, lora_dir, caplog, fault
):
    """The log and every request to it name it; nothing is drawn with it, and the catalog still knows it."""
    models = opened("a", folders["a"]), broken("b", folders["b"], fault)
    async with engine_of(*models, loras=lora_dir, resident_models=2) as engine:
        await engine.warm_up()
        assert engine.status().ready
        assert REASONS[fault] in caplog.text
        for _ in range(2):
            with pytest.raises(ModelError, match=REASONS[fault]) as caught:
                await run(engine, asked("b"))
            assert caught.value.reason == "MODEL_UNUSABLE"
        with pytest.raises(ModelError, match=REASONS[fault]):
            await engine.prepare_loras("b", (ONE,))
        assert await images_of(engine, asked("a"))
        assert [info.name for info in engine.models] == ["a", "b"]
        assert (await engine.get_lora(ONE, "b", include_modules=False)).info.fits
        status = engine.status()
        assert (status.running, status.queued, status.jobs_finished) == (0, 0, 1)


@pytest.mark.parametrize("fault", REASONS)
async def test_where_the_first_model_fails_another_is_tried(folders, fault):
    """The default stays the default, and is refused; the next, for which there is now room, is served."""
    async with engine_of(broken("b", folders["b"], fault), opened("a", folders["a"])) as engine:
        await engine.warm_up()
        assert engine.status().ready
        assert residents(engine) == ["a"]
        with pytest.raises(ModelError, match=REASONS[fault]):
            await run(engine, asked("b"))
        assert await images_of(engine, asked("a"))


@pytest.mark.parametrize("fault", REASONS)
async def test_where_no_model_works_the_start_fails(folders, fault):
    """With the failure of the first."""
    models = broken("b", folders["b"], fault), broken("a", folders["a"], "raises")
    async with engine_of(*models) as engine:
        with pytest.raises(ModelError, match=REASONS[fault]):
            await engine.warm_up()
        assert not engine.status().ready


@pytest.mark.parametrize("fault", REASONS)
async def test_a_model_that_comes_later_and_fails_its_first_step_is_named(folders, caplog, fault):
    """Every request to it is told, and the other model is drawn in between."""
    async with engine_of(opened("a", folders["a"]), broken("b", folders["b"], fault)) as engine:
        await engine.warm_up()
        for _ in range(2):
            with pytest.raises(ModelError, match=REASONS[fault]):
                await run(engine, asked("b"))
            assert await images_of(engine, asked("a"))
        if fault == "raises":
            assert "no_such_part" in caplog.text


async def test_a_model_for_which_memory_is_short_at_the_start_may_be_asked_later(folders):
    """Unlike one that does not work: the neighbour that had the memory may be gone."""
    source = opened("b", folders["b"])
    short = [MemoryError()]

    def load():
        if short:
            raise short.pop()
        return source.load()

    models = opened("a", folders["a"]), replace(source, load=load)
    async with engine_of(*models, resident_models=2) as engine:
        await engine.warm_up()
        assert residents(engine) == ["a"]
        assert await images_of(engine, asked("b"))
