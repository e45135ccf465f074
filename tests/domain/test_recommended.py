"""What of a request does not fit what a LoRA file was made for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sdgrpc.domain import RecommendedSampling, Sampling, Scheduler, SigmaSpacing, TimestepSpacing

LIGHTNING = RecommendedSampling(
    "Lightning", 4, 4, 4, 1.0, 1.0, Scheduler.EULER, (Scheduler.DDIM,), TimestepSpacing.TRAILING
)
FITTING = Sampling(
    4, 1.0, Scheduler.EULER, SigmaSpacing.DEFAULT, seed=0, timestep_spacing=TimestepSpacing.TRAILING
)


def test_an_ordinary_request_is_warned_of_everything() -> None:
    """Each of the four that does not fit is named, after what the file was made for."""
    ordinary = Sampling(25, 7.5, Scheduler.PNDM, SigmaSpacing.DEFAULT, seed=0)
    assert LIGHTNING.warnings(ordinary, "epsilon", trails=False) == (
        "made for Lightning: 4 steps, guidance 1, scheduler euler, trailing; this request has "
        "25 steps, guidance 7.5, scheduler pndm, default spacing",
    )


@pytest.mark.parametrize("changes", [{}, {"scheduler": Scheduler.DDIM}])
def test_what_fits_is_not_warned_of(changes: dict) -> None:
    """Nor are the other schedulers that fit."""
    assert LIGHTNING.warnings(replace(FITTING, **changes), "epsilon", trails=False) == ()


def test_a_model_of_trailing_timesteps_needs_no_spacing() -> None:
    """What the model's configuration sets already fits."""
    unset = replace(FITTING, timestep_spacing=None)
    assert LIGHTNING.warnings(unset, "epsilon", trails=True) == ()
    assert len(LIGHTNING.warnings(unset, "epsilon", trails=False)) == 1


def test_v_prediction_on_an_epsilon_model() -> None:
    """A file that was trained on another prediction type is warned of, and on its own not."""
    told = RecommendedSampling(prediction_type="v_prediction")
    assert told.warnings(FITTING, "epsilon", trails=False) == (
        "made for models that predict v_prediction; this request has a model that predicts epsilon",
    )
    assert told.warnings(FITTING, "v_prediction", trails=False) == ()


@pytest.mark.parametrize(
    ("steps", "strength", "expected"),
    [(50, 0.58, 29), (100, 0.29, 29), (5, 0.1, 1), (150, 0.001, 1), (20, 0.0, 0), (20, 1.0, 20)],
)
def test_steps_of_a_strength(steps: int, strength: float, expected: int) -> None:
    """The share of the shortest decimal, rounded down; one at least, but none at 0."""
    from tests.support.tasks import task

    assert task(steps=steps, strength=strength).step_count == expected
