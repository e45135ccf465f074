"""A model's files to a model: dtypes, memory, files that change meanwhile, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sdgrpc.diffusion.checkpoints.loading import load, open_model
from sdgrpc.diffusion.checkpoints.stored import Unfilled
from sdgrpc.diffusion.model import Model
from sdgrpc.domain import Scheduler
from sdgrpc.embedded import EMBEDDED, embedded_folder
from sdgrpc.errors import ModelError
from tests.support.original import save_original
from tests.support.published import save_published
from tests.support.refusals import edit, refused
from tests.support.tasks import draw, task

CPU = torch.device("cpu")
UNET_WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


def test_a_folder_becomes_a_model(folder: Path, model: Model) -> None:
    """Weights are read, frozen and in evaluation mode, in float32 unless told otherwise."""
    assert set(model.lora_components()) == {"unet", "text_encoder"}
    assert model.dtype is torch.float32
    saved = load_file(folder / UNET_WEIGHTS)
    assert all(torch.equal(saved[name], value) for name, value in model.unet.state_dict().items())
    for module in (model.unet, model.vae, model.text_encoders["text_encoder"]):
        assert not module.training
        assert not any(parameter.requires_grad for parameter in module.parameters())


def test_the_dtype_is_of_the_unet_and_the_text_encoder(folder: Path) -> None:
    """The VAE has one in which it does not overflow."""
    for dtype, vae in ((torch.bfloat16, torch.bfloat16), (torch.float16, torch.float32)):
        model = load("half", str(folder), device=CPU, dtype=dtype)
        assert model.unet.dtype is dtype
        assert model.text_encoders["text_encoder"].dtype is dtype
        assert model.vae.dtype is vae


def test_the_embedded_model_is_packaged() -> None:
    """`embedded` needs no path and names itself so."""
    model = load("default", EMBEDDED, device=CPU, dtype=None)
    assert (model.info.name, model.info.base) == ("default", "embedded")
    assert (model.info.width, model.info.height) == (128, 128)
    assert embedded_folder().is_dir()


def test_nothing_is_printed(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A server's standard error stays free of the libraries' progress bars."""
    load("quiet", folder, device=CPU, dtype=None)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


def test_the_scheduler_configuration_is_kept_as_written(folder: Path, model: Model) -> None:
    """The default scheduler is the one that the folder was saved with."""
    assert model.scheduler_config == json.loads((folder / "scheduler/scheduler_config.json").read_text())
    assert model.info.scheduler is Scheduler.PNDM


def test_no_folder(tmp_path: Path) -> None:
    """A path that is no folder is named, with what would do."""
    refused(
        tmp_path / "none", r"none is no folder or file; give a folder in diffusers' layout, .* or 'embedded'"
    )


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder, and a file of the same model with the vocabulary beside it."""
    root = tmp_path_factory.mktemp("layouts")
    folder = save_published(root / "folder", "sd15", inpainting=False)
    (root / "tokenizer").symlink_to(folder / "tokenizer")
    model = load("folder", folder, device=CPU, dtype=None)
    return {"folder": folder, "file": save_original(model, root / "one.safetensors")}


@pytest.mark.parametrize("layout", ["folder", "file"])
@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("can't start new thread"),
    ],
    ids=["python", "cuda", "cpu", "thread"],
)
def test_not_enough_memory(
    layouts: dict[str, Path], monkeypatch: pytest.MonkeyPatch, error: Exception, layout: str
) -> None:
    """Every allocator's failure is one sentence that says what would help."""

    def fail(*_args: object, **_options: object) -> torch.Tensor:
        raise error

    opened = open_model("large", layouts[layout])
    monkeypatch.setattr(torch, "empty", fail)
    with pytest.raises(ModelError, match=r"not enough memory on cpu for the model large .* --dtype bfloat16"):
        opened.load(CPU, None)


@pytest.mark.parametrize("layout", ["folder", "file"])
def test_a_model_larger_than_what_is_left_is_not_read(
    layouts: dict[str, Path], monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    """Linux would grant the memory and kill the process: what the parameters take is asked for beforehand."""
    opened = open_model("large", layouts[layout])
    model = opened.load(CPU, torch.bfloat16)
    networks = (model.unet, model.vae, *model.text_encoders.values())
    size = sum(one.nbytes for network in networks for one in network.parameters())
    monkeypatch.setattr("sdgrpc.machine.free_memory.available_bytes", lambda: float(size))
    assert opened.load(CPU, torch.bfloat16).dtype is torch.bfloat16
    with pytest.raises(ModelError, match=r"not enough memory .* takes 0.0 GiB; serve it with --dtype"):
        opened.load(CPU, torch.float32)
    monkeypatch.setattr("sdgrpc.machine.free_memory.available_bytes", lambda: size - 1.0)
    with pytest.raises(ModelError, match="not enough memory"):
        opened.load(CPU, torch.bfloat16)


def test_other_failures_are_not_called_a_lack_of_memory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of ours keeps its own name."""
    opened = open_model("odd", folder)
    monkeypatch.setattr(Unfilled, "fill", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("a fault")))
    with pytest.raises(RuntimeError, match="a fault"):
        opened.load(CPU, None)


def test_a_file_that_is_cut_after_it_was_opened(copy: Path) -> None:
    """What was checked may change before it is read: a clear failure, never a crash."""
    opened = open_model("cut", copy)
    weights = copy / UNET_WEIGHTS
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    with pytest.raises(ModelError, match="was cut while it was read"):
        opened.load(CPU, None)


def test_nothing_of_the_files_is_used_after_loading(copy: Path, model: Model) -> None:
    """Files of a model that is served may be overwritten and cut: every weight was read."""
    loaded = load("served", copy, device=CPU, dtype=None)
    for file in copy.rglob("*.safetensors"):
        file.write_bytes(b"")
    assert torch.equal(draw(loaded, task()), draw(model, task()))


def test_a_unet_of_other_channels(copy: Path) -> None:
    """Depth, upscaling and editing models have inputs that we do not make."""
    edit(copy / "unet/config.json", in_channels=8)
    tensors = load_file(copy / UNET_WEIGHTS)
    tensors["conv_in.weight"] = tensors["conv_in.weight"].repeat(1, 2, 1, 1)
    save_file(tensors, copy / UNET_WEIGHTS, metadata={"format": "pt"})
    refused(copy, r"takes 8 channels; 4 \(ordinary\) or 9 \(inpainting\) are supported")
