"""Weights of convolutions in another memory format."""

from __future__ import annotations

import copy

import torch

from benchmarks.layout import lay_out
from sdgrpc.diffusion.model import Model
from sdgrpc.diffusion.pictures import autoencoder


def test_values_stay_and_only_convolutions_are_laid_out(model: Model) -> None:
    """Every parameter keeps its numbers; convolutions of more than a pixel have their channels last."""
    laid = lay_out(copy.deepcopy(model.unet), torch.channels_last)
    for name, parameter in model.unet.named_parameters():
        other = laid.get_parameter(name)
        assert torch.equal(parameter, other)
        assert not other.requires_grad
        if parameter.ndim == 4:
            assert other.is_contiguous(memory_format=torch.channels_last)
        else:
            assert other.stride() == parameter.stride()
    assert laid.conv_in.weight.stride() != model.unet.conv_in.weight.stride()


def test_what_lies_right_stays_where_it_is(model: Model) -> None:
    """Nothing is copied for a format that is there already."""
    before = {name: one.data_ptr() for name, one in model.unet.named_parameters()}
    lay_out(model.unet, torch.contiguous_format)
    assert {name: one.data_ptr() for name, one in model.unet.named_parameters()} == before


@torch.inference_mode()
def test_networks_compute_the_same(model: Model) -> None:
    """Up to float32's rounding, since sums may be added in another order."""
    generator = torch.Generator().manual_seed(0)
    laid = copy.copy(model)
    laid.unet = lay_out(copy.deepcopy(model.unet), torch.channels_last)
    laid.vae = lay_out(copy.deepcopy(model.vae), torch.channels_last)
    sample = torch.randn(2, 4, 8, 8, generator=generator)
    text = torch.randn(2, 77, model.unet.config.cross_attention_dim, generator=generator)
    answers = [one.unet(sample, 500, encoder_hidden_states=text).sample for one in (model, laid)]
    torch.testing.assert_close(answers[0], answers[1], rtol=1e-4, atol=1e-5)
    pictures = [autoencoder.decode(one, sample)[0] for one in (model, laid)]
    differences = [abs(a - b) for a, b in zip(pictures[0].data, pictures[1].data, strict=True)]
    assert max(differences) <= 1
