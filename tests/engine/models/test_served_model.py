"""A model with its sets whose convolutions are packed, as those of large models on CPUs are."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from benchmarks.layout import lay_out
from benchmarks.lora_sets.files import STACK, write
from sdgrpc.diffusion.checkpoints import precision
from sdgrpc.diffusion.checkpoints.loading import load, open_model
from sdgrpc.diffusion.compiling import rows
from sdgrpc.diffusion.compiling.calls import call_unet, example_inputs
from sdgrpc.diffusion.compiling.direct import DirectPictureAttention, DirectTransformer
from sdgrpc.diffusion.model import Model
from sdgrpc.domain import LoraRef
from sdgrpc.engine.models import served_model
from sdgrpc.engine.models.device_options import DeviceOptions
from sdgrpc.engine.models.served_model import ServedModel
from sdgrpc.lora.store.library import LoraLibrary
from sdgrpc.machine.onednn.packing import packed_convolutions
from sdgrpc.machine.workers import Workers
from tests.support.models import save_model

DTYPES = [torch.float32, torch.bfloat16]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and three LoRA files: of attention, of whole transformers and of convolutions."""
    folder = tmp_path_factory.mktemp("packed")
    model = loaded(save_model(folder / "model"), torch.float32)
    for seed, kind in enumerate(STACK):
        write(kind, model.lora_components(), folder / f"lora{seed}.safetensors", seed)
    return folder


def loaded(folder: Path, dtype: torch.dtype) -> Model:
    model = load("tiny", folder, device=torch.device("cpu"), dtype=dtype)
    lay_out(model.unet, torch.channels_last)
    return model


def served(folder: Path, dtype: torch.dtype, options: DeviceOptions | None = None) -> ServedModel:
    return ServedModel.of(loaded(folder / "model", dtype), lora_cache_bytes=1 << 30, options=options)


def answers(made: ServedModel, folder: Path) -> Iterator[tuple[Tensor, float]]:
    """Predictions and relative norms without a file, with one, with three, and with none again."""
    library = LoraLibrary([folder])
    shaped = example_inputs(made.model.unet, 2, 8, 8)
    generator = torch.Generator().manual_seed(0)
    sample, states = (
        torch.randn(like.shape, generator=generator).to(like.dtype) for like in (shaped.sample, shaped.states)
    )
    sample = sample.contiguous(memory_format=torch.channels_last)
    for names in ((), ("lora2",), ("lora0", "lora1", "lora2"), ()):
        refs = [LoraRef(0.7, 0.7, name=name) for name in names]
        lease = made.sets.acquire(list(zip(library.find_all(refs), refs, strict=True)))
        with torch.inference_mode():
            made.use("unet", lease)
            answer = made.model.unet(sample, shaped.timesteps, states).sample
        yield answer.float(), sum(report.relative_norm for report in lease.reports)
        lease.release()


@pytest.mark.parametrize("dtype", DTYPES)
def test_packed_sets_predict_what_others_do(
    folder: Path, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the rounding of a dtype: fused weights of convolutions are summed in another order."""
    with monkeypatch.context() as patched:
        patched.setattr(served_model, "pack_convolutions", lambda _network: None)
        by_rows = served(folder, dtype)
    packed = served(folder, dtype)
    assert not list(packed_convolutions(by_rows.model.unet))
    assert len(list(packed_convolutions(packed.model.unet))) > 10
    near = 1e-5 if dtype == torch.float32 else 2e-2
    pairs = list(zip(answers(by_rows, folder), answers(packed, folder), strict=True))
    for (expected, norm), (answer, packed_norm) in pairs:
        torch.testing.assert_close(answer, expected, rtol=near, atol=near)
        assert packed_norm == pytest.approx(norm, rel=1e-3)
    changed = [answer for _, (answer, _) in pairs]
    assert torch.equal(changed[0], changed[3])
    assert (changed[1] - changed[0]).abs().max() > 10 * near


def test_sets_are_packed_as_they_are_made(folder: Path) -> None:
    """A file without convolutions packs nothing; one with them no more than they are."""
    made = served(folder, torch.float32)
    library = LoraLibrary([folder])
    for name, kinds in (("lora0", {False}), ("lora2", {False, True})):
        one = LoraRef(1.0, 1.0, name=name)
        with made.sets.acquire([(library.find_all([one])[0], one)]) as lease:
            weights = lease.overlay.tensors["unet"]
            assert {weight.is_mkldnn for weight in weights.values()} == kinds
            assert all(weight.is_mkldnn == (weight.shape[2:] == (3, 3)) for weight in weights.values())


def test_a_model_gets_its_weights_back(folder: Path) -> None:
    """To the bit, laid out as before."""
    model = loaded(folder / "model", torch.float32)
    before = {name: weight.clone() for name, weight in model.unet.state_dict().items()}
    kinds = [type(one) for network in (model.unet, model.vae) for one in network.modules()]
    made = ServedModel.of(model, lora_cache_bytes=1 << 30)
    assert DirectTransformer in {type(one) for one in model.unet.modules()}
    assert DirectPictureAttention in {type(one) for one in model.vae.modules()}
    list(answers(made, folder))
    made.restore()
    for name, weight in model.unet.state_dict().items():
        assert torch.equal(weight, before[name])
        assert weight.stride() == before[name].stride()
    assert [type(one) for network in (model.unet, model.vae) for one in network.modules()] == kinds
    assert all(type(one) is not nn.Conv2d or not one.weight.is_mkldnn for one in model.unet.modules())


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_was_packed_as_it_was_read_is_served_alike(
    folder: Path, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Predictions and weights that are given back equal, to the bit, those of a model packed afterwards."""
    monkeypatch.setattr(precision, "SMALLEST_HALVED", 1)  # a large model
    opened, cpu = open_model("tiny", folder / "model"), torch.device("cpu")
    models = [opened.load(cpu, dtype, packed=packed) for packed in (True, False)]
    assert [bool(list(packed_convolutions(model.unet))) for model in models] == [True, False]
    made = [ServedModel.of(model, lora_cache_bytes=1 << 30) for model in models]
    (read, afterwards) = ([answer for answer, _ in answers(one, folder)] for one in made)
    assert all(torch.equal(one, other) for one, other in zip(read, afterwards, strict=True))
    for one in made:
        one.restore()
    for name, weight in models[0].unet.state_dict().items():
        other = models[1].unet.state_dict()[name]
        assert torch.equal(weight, other)
        assert weight.stride() == other.stride()


def test_an_unloaded_model_holds_nothing(folder: Path) -> None:
    """Its U-Net is on the meta device, packed or not."""
    made = served(folder, torch.float32)
    made.unload()
    assert {weight.device.type for weight in made.model.unet.parameters()} == {"meta"}


@pytest.mark.parametrize("options", [DeviceOptions(compile="blocks"), DeviceOptions(resident_factors="on")])
def test_compiled_networks_and_live_weights_stay_by_rows(folder: Path, options: DeviceOptions) -> None:
    """A compiler packs by itself, and live weights are written in place."""
    made = served(folder, torch.float32, options)
    assert not list(packed_convolutions(made.model.unet))
    made.restore()


@pytest.mark.parametrize("dtype", DTYPES)
def test_each_core_computes_rows_of_its_own_in_bfloat16(
    folder: Path, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a set in place as without one; in float32, whose weights are large, a call is what it was."""
    pool = Workers(2, "test-rows")
    monkeypatch.setattr(rows, "step_workers", lambda: pool)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    made, library = served(folder, dtype), LoraLibrary([folder])
    callers: list[str] = []
    made.model.unet.register_forward_pre_hook(lambda *_: callers.append(threading.current_thread().name[:9]))
    example = example_inputs(made.model.unet, 4, 8, 8)
    drawn = torch.Generator().manual_seed(0)
    asked = example.each(lambda one: torch.randn(one.shape, generator=drawn).abs().to(one.dtype))
    for names in ((), ("lora0", "lora2")):
        refs = [LoraRef(0.7, 0.7, name=name) for name in names]
        with made.sets.acquire(list(zip(library.find_all(refs), refs, strict=True))) as lease:
            made.use("unet", lease)
            with torch.inference_mode():
                expected = call_unet(made.model.unet, asked)
                callers.clear()
                found = made.evaluator(asked)
        assert callers == (["test-rows"] * 2 if dtype == torch.bfloat16 else ["MainThrea"])
        near = 2e-2 if dtype == torch.bfloat16 else 0.0
        torch.testing.assert_close(found, expected, rtol=near, atol=near)
