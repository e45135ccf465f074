"""Files of ESRGAN's names, against spandrel's own answer for the whole picture."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from sdgrpc.diffusion.upscaling.network import Upscaler, load, load_all
from sdgrpc.domain import Picture, UpscalerInfo
from sdgrpc.errors import ModelError
from sdgrpc.images import to_image, to_picture
from tests.support.tasks import gradient, pixels_of
from tests.support.upscalers import rrdb_tensors, save_upscaler

spandrel = pytest.importorskip("spandrel", reason="the extra [upscale] is not installed")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def four_times(tmp_path_factory) -> Upscaler:
    return load("small", save_upscaler(tmp_path_factory.mktemp("x4") / "x4.safetensors"), CPU)


def whole(upscaler: Upscaler, picture: Picture) -> np.ndarray:
    """What spandrel's descriptor makes of all of it at once, in 8 bits."""
    unit = torch.from_numpy(pixels_of(picture).copy()).permute(2, 0, 1)[None] / 255
    return (upscaler.descriptor(unit)[0] * 255).round().permute(1, 2, 0).numpy().astype(int)


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize("scale", [2, 4])
def test_published_files_are_read(tmp_path: Path, suffix: str, scale: int) -> None:
    """Safetensors, and pickles with the weights under `params_ema`; their size and kind are told."""
    upscaler = load("it", save_upscaler(tmp_path / f"it.{suffix}", scale=scale), CPU)
    assert upscaler.info == UpscalerInfo("it", scale, "ESRGAN")
    picture = gradient(40, 24)
    large = upscaler.upscale(picture)
    assert (large.width, large.height, large.channels) == (40 * scale, 24 * scale, 3)
    assert np.array_equal(pixels_of(large).astype(int), whole(upscaler, picture))


def test_tiles_are_the_whole_picture(four_times: Upscaler) -> None:
    """Within one of 255, though a block of five convolutions thrice sees 15 pixels far and more.

    Beyond the overlap's outer quarter, 8 pixels, weights see little of what is missing at a tile's edge.
    """
    picture, told = gradient(150, 100), []
    large = replace(four_times, tile=64).upscale(picture, lambda *seen: told.append(seen))
    assert told[-1] == (12, 12)
    difference = abs(pixels_of(large).astype(int) - whole(four_times, picture))
    assert difference.max() <= 1
    assert pixels_of(large).std() > 5


def test_alpha_is_kept(four_times: Upscaler) -> None:
    """By Lanczos; the colours are those without it."""
    image = to_image(gradient(32, 24)).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize((32, 24)))
    large = to_image(four_times.upscale(to_picture(image)))
    assert large.mode == "RGBA"
    expected = image.getchannel("A").resize((128, 96), Image.Resampling.LANCZOS)
    assert large.getchannel("A").tobytes() == expected.tobytes()
    assert large.convert("RGB").tobytes() == four_times.upscale(gradient(32, 24)).data


def test_it_is_repeated_until_it_covers(four_times: Upscaler) -> None:
    """Once at least, and again where that is too small."""
    image = to_image(gradient(16, 16))
    assert four_times.covering(image, 20, 20).size == (64, 64)
    assert four_times.covering(image, 65, 20).size == (256, 256)


def test_several_keep_their_order(tmp_path: Path) -> None:
    """The first is the default."""
    places = {name: save_upscaler(tmp_path / f"{name}.safetensors") for name in ("b", "a")}
    assert list(load_all(places, CPU)) == ["b", "a"]


class Code:
    """What a pickle runs."""

    def __reduce__(self):
        return (print, ("ran",))


def broken_files(folder: Path):
    tensors = rrdb_tensors()
    save_file({"a": torch.zeros(2)}, folder / "unknown.safetensors")
    yield folder / "unknown.safetensors", "no architecture that spandrel knows"
    tensors["conv_last.weight"] = torch.zeros(3, 5, 3, 3)
    save_file(tensors, folder / "shape.safetensors")
    yield folder / "shape.safetensors", "is broken, or of another form"
    (folder / "cut.safetensors").write_bytes((folder / "shape.safetensors").read_bytes()[:-9])
    yield folder / "cut.safetensors", "is truncated"
    (folder / "text.pth").write_text("hello, this is no file of weights")
    yield folder / "text.pth", "is not a safetensors file"
    (folder / "code.pth").write_bytes(pickle.dumps({"params": Code()}))
    yield folder / "code.pth", "nothing of it was run"
    torch.save([torch.zeros(2)], folder / "list.pth")
    yield folder / "list.pth", "holds list, no map of tensors"
    torch.save(rrdb_tensors(), folder / "named.safetensors")
    yield folder / "named.safetensors", "is a pickle"
    yield folder / "missing.safetensors", "cannot be read"


def test_broken_files_are_named(tmp_path: Path, capsys) -> None:
    """With what is wrong, in a sentence of one line; no code runs."""
    for place, sentence in broken_files(tmp_path):
        with pytest.raises(ModelError, match=sentence) as caught:
            load("it", place, CPU)
        assert str(place) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""


def test_without_the_extra_it_is_named(tmp_path: Path, monkeypatch) -> None:
    """The error says what to install."""
    monkeypatch.setitem(__import__("sys").modules, "spandrel", None)
    with pytest.raises(ModelError, match=r'pip install "sdgrpc\[upscale\]"'):
        load("it", save_upscaler(tmp_path / "it.safetensors"), CPU)
