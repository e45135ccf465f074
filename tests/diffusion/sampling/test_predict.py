"""UNet calls for several jobs: rows, guidance, splitting."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from sdgrpc.diffusion.model import Model
from sdgrpc.diffusion.prompts.conditioning import Conditioning, encode
from sdgrpc.diffusion.sampling.denoise import ModelInput
from sdgrpc.diffusion.sampling.predict import predict


def wish(conditioning: Conditioning, *, seed: int, images: int = 1, scale: float = 3.0) -> ModelInput:
    """What a job at some step wants."""
    sample = torch.randn(images, 4, 8, 8, generator=torch.Generator().manual_seed(seed))
    return ModelInput(sample, torch.tensor(100 * seed + 1), conditioning, scale)


@contextmanager
def counted_rows(model: Model) -> Iterator[list[int]]:
    """The batch sizes of the UNet calls made inside."""
    rows: list[int] = []
    hook = model.unet.register_forward_pre_hook(lambda _, args: rows.append(args[0].shape[0]))
    try:
        yield rows
    finally:
        hook.remove()


@pytest.fixture(scope="module")
def both(model: Model) -> Conditioning:
    return encode(model, "a red cat", "blue")


def test_guidance_is_the_formula(model: Model, both: Conditioning) -> None:
    """The prediction is negative + scale * (positive - negative), from two evaluations."""
    asked = wish(both, seed=1, scale=4.0)
    positive = predict(model, [wish(Conditioning(both.positive), seed=1)], 8)[0]
    assert both.negative is not None
    negative = predict(model, [wish(Conditioning(both.negative), seed=1)], 8)[0]
    expected = negative + 4.0 * (positive - negative)
    torch.testing.assert_close(predict(model, [asked], 8)[0], expected, rtol=1e-4, atol=1e-5)


def test_without_guidance_half_the_rows_run(model: Model, both: Conditioning) -> None:
    """A guidance scale of 1 asks the UNet once per image."""
    with counted_rows(model) as rows:
        predict(model, [wish(both, seed=1, images=2, scale=1.0)], 8)
        predict(model, [wish(both, seed=1, images=2, scale=1.5)], 8)
    assert rows == [2, 4]


def test_several_jobs_share_a_call(model: Model, both: Conditioning) -> None:
    """Jobs at other timesteps, scales and prompts get in one call what each would get alone."""
    inputs = [
        wish(both, seed=1, images=2),
        wish(encode(model, "a blue dog", ""), seed=2, scale=7.5),
        wish(both, seed=3, scale=1.5),
    ]
    with counted_rows(model) as rows:
        together = predict(model, inputs, 8)
    assert rows == [8]
    for asked, prediction in zip(inputs, together, strict=True):
        assert prediction.shape == asked.sample.shape
        torch.testing.assert_close(prediction, predict(model, [asked], 8)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("most", "expected"), [(8, [8, 2]), (4, [4, 4, 2]), (3, [2] * 5), (1, [1] * 10)])
def test_too_many_rows_are_split(model: Model, both: Conditioning, most: int, expected: list[int]) -> None:
    """No call exceeds the limit; the two rows of a guided image stay together while two are allowed."""
    inputs = [wish(both, seed=1, images=3), wish(both, seed=2, images=2)]
    with counted_rows(model) as rows:
        split = predict(model, inputs, most)
    assert rows == expected
    for one, whole in zip(split, predict(model, inputs, 100), strict=True):
        torch.testing.assert_close(one, whole, rtol=1e-4, atol=1e-5)


def test_an_equal_call_gives_equal_bits(model: Model, both: Conditioning) -> None:
    """Nothing of an earlier call stays behind."""
    asked = [wish(both, seed=1)]
    first = predict(model, asked, 8)[0]
    predict(model, [wish(both, seed=2, images=3)], 8)
    assert torch.equal(first, predict(model, asked, 8)[0])


def test_whole_and_fractional_timesteps_mix(model: Model, both: Conditioning) -> None:
    """Schedulers with integer, float32 and float64 timesteps share a call."""
    inputs = [
        ModelInput(torch.ones(1, 4, 8, 8), torch.tensor(value, dtype=dtype), both, 2.0)
        for value, dtype in ((501, torch.int64), (501.0, torch.float32), (501.0, torch.float64))
    ]
    first, second, third = predict(model, inputs, 100)
    torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(first, third, rtol=1e-5, atol=1e-6)


def test_guidance_is_rescaled_by_each_images_share(model: Model, both: Conditioning) -> None:
    """Formula (16) of 2305.08891; a neighbour without it gets the bits that it gets alone."""
    plain, rescaled = (
        wish(both, seed=1, images=2),
        replace(wish(both, seed=1, images=2), guidance_rescale=0.7),
    )
    guided = predict(model, [plain], 8)[0].double()
    positive = predict(model, [wish(Conditioning(both.positive), seed=1, images=2)], 8)[0].double()
    ratios = positive.std((1, 2, 3), keepdim=True) / guided.std((1, 2, 3), keepdim=True)
    expected = 0.7 * guided * ratios + 0.3 * guided
    beside, ours = predict(model, [plain, rescaled], 8)
    torch.testing.assert_close(ours.double(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(beside.double(), guided, rtol=1e-4, atol=1e-5)
    assert (ours - beside).abs().max() > 0.01


@pytest.mark.parametrize(("most", "expected"), [(8, [6]), (3, [3, 3]), (2, [2, 1, 2, 1]), (1, [1] * 6)])
def test_parts_are_rows_of_a_call(model: Model, both: Conditioning, most: int, expected: list[int]) -> None:
    """Each image has one for the negative prompt and one for each part; calls of any size answer alike."""
    parts = encode(model, [("a red cat", 1.5), ("a blue dog", -0.5)], "blue")
    other = encode(model, [("a blue dog", 0.2), ("a red cat", 0.3)], "blue")
    inputs = [wish(parts, seed=1, scale=4.0), wish(other, seed=2, scale=1.0)]
    with counted_rows(model) as rows:
        found = predict(model, inputs, most)
    assert rows == expected
    cat, dog = both, encode(model, "a blue dog", "blue")
    for one, prediction, (first, second) in zip(inputs, found, [(cat, dog), (dog, cat)], strict=True):
        negative, *positives = (
            predict(model, [replace(one, conditioning=Conditioning(told))], 8)[0].double()
            for told in (both.negative, first.positive, second.positive)
            if told is not None
        )
        towards = [
            weight * (each - negative)
            for weight, each in zip(one.conditioning.weights, positives, strict=True)
        ]
        expected_prediction = negative + one.guidance_scale * sum(towards)
        torch.testing.assert_close(prediction.double(), expected_prediction, rtol=1e-4, atol=1e-5)
