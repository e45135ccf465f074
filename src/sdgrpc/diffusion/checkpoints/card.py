"""What a model says about itself: its architecture's facts and the defaults of its sdgrpc.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from sdgrpc.diffusion.pictures.previews import PUBLISHED_FACTORS
from sdgrpc.diffusion.sampling.schedulers import scheduler_of
from sdgrpc.domain import ModelInfo, Scheduler, TimestepSpacing
from sdgrpc.domain.bases import BASES, OWN, SD15, SDXL, base_of_width
from sdgrpc.errors import ModelError
from sdgrpc.regular_files import read_regular

CARD = "sdgrpc.json"
MAX_CARD_BYTES = 1 << 20
PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")


def prediction_type(path: Path) -> str | None:
    """What the card at `path` says that the UNet predicts; None if it says nothing.

    Raises:
        ModelError: the card cannot be read or names something else.

    """
    return _Card(path).choice("prediction_type", PREDICTION_TYPES)


def with_card(path: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a scheduler's configuration with what the card at `path` says of the noise over it.

    `prediction_type`, and `zero_terminal_snr`, with which steps count from the noisiest timestep too.

    Raises:
        ModelError: the card cannot be read or holds something else.

    """
    card = _Card(path)
    told = card.choice("prediction_type", PREDICTION_TYPES)
    ends = card.flag("zero_terminal_snr")
    changed: dict[str, Any] = {} if told is None else {"prediction_type": told}
    if ends is not None:
        changed |= {"rescale_betas_zero_snr": ends} | ({"timestep_spacing": "trailing"} if ends else {})
    return {**config, **changed}


def model_info(
    name: str,
    card_path: Path,
    parts: Mapping[str, Any],
    scheduler_config: Mapping[str, Any],
    *,
    embedded: bool,
) -> ModelInfo:
    """Describe a loaded model; `parts` are its components by diffusers' names.

    The card, `sdgrpc.json` beside `model_index.json` or `NAME.sdgrpc.json` beside `NAME.safetensors`, may
    set `title`, `description`, `default_width`, `default_height`, `default_steps`,
    `default_guidance_scale`, `default_guidance_rescale`, `default_scheduler`, `default_timestep_spacing`
    (`leading`, `linspace`, `trailing` or `align_your_steps`), `latent_rgb_factors`, `latent_rgb_bias`,
    `prediction_type` and `zero_terminal_snr` (true or false). What it leaves out follows from the
    architecture: the UNet's sample size, 25 steps, guidance 7.5, the scheduler that the model was saved with.

    Raises:
        ModelError: the card holds an unknown key or a value of the wrong kind.

    """
    unet, vae = parts["unet"].config, parts["vae"].config
    encoders = [part for name, part in parts.items() if name.startswith("text_encoder")]
    base = _base(int(unet.cross_attention_dim), len(encoders), embedded=embedded)
    factor = 2 ** (len(vae.block_out_channels) - 1)
    height, width = _pair(unet.sample_size or 64)
    card = _Card(card_path)
    card.choice("prediction_type", PREDICTION_TYPES)  # in the scheduler's configuration already, as is
    card.flag("zero_terminal_snr")
    spacing = card.choice("default_timestep_spacing", [one.value for one in TimestepSpacing])
    factors, bias = PUBLISHED_FACTORS.get(base, PUBLISHED_FACTORS[SD15])
    info = ModelInfo(
        name=name,
        base=base,
        title=card.text("title", BASES[base].title),
        description=card.text("description", ""),
        width=card.integer("default_width", width * factor),
        height=card.integer("default_height", height * factor),
        steps=card.integer("default_steps", 25),
        guidance_scale=card.number("default_guidance_scale", 7.5),
        scheduler=card.scheduler("default_scheduler", scheduler_config),
        is_inpainting=int(unet.in_channels) == 2 * int(vae.latent_channels) + 1,
        latent_channels=int(vae.latent_channels),
        vae_scale_factor=factor,
        prediction_type=str(scheduler_config.get("prediction_type", "epsilon")),
        text_encoder_layers=min(int(encoder.config.num_hidden_layers) for encoder in encoders),
        latent_rgb_factors=card.matrix("latent_rgb_factors", factors, rows=int(vae.latent_channels)),
        latent_rgb_bias=card.matrix("latent_rgb_bias", (bias,), rows=1)[0],
        timestep_spacing=TimestepSpacing(spacing) if spacing else None,
        guidance_rescale=card.share("default_guidance_rescale", 0.0),
        zero_terminal_snr=bool(scheduler_config.get("rescale_betas_zero_snr")),
    )
    card.refuse_the_rest()
    return info


def _base(width: int, encoder_count: int, *, embedded: bool) -> str:
    """The family: SDXL alone has two text encoders, the others differ in the embeddings' width."""
    if embedded:
        return OWN
    return SDXL if encoder_count == 2 else base_of_width(width)


def _pair(size: int | list[int]) -> tuple[int, int]:
    """Height and width of a configuration's size, which is one number where they are equal."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


T = TypeVar("T")


class _Card:
    """The values of sdgrpc.json, each checked as it is taken out."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._values: dict[str, Any] = {}
        try:
            self._values = dict(json.loads(read_regular(path, MAX_CARD_BYTES)))
        except FileNotFoundError:
            return  # a model needs none
        except (OSError, ValueError, TypeError) as error:
            raise ModelError(f"{path} cannot be read as a JSON object: {error}") from error

    def text(self, key: str, default: str) -> str:
        return str(self._take(key, default, isinstance(self._values.get(key, default), str), "a text"))

    def integer(self, key: str, default: int) -> int:
        value = self._values.get(key, default)
        fits = isinstance(value, int) and not isinstance(value, bool) and value > 0
        return int(self._take(key, default, fits, "a whole number above 0"))

    def number(self, key: str, default: float) -> float:
        value = self._values.get(key, default)
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        return float(self._take(key, default, fits, "a number"))

    def share(self, key: str, default: float) -> float:
        value = self._values.get(key, default)
        fits = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
        return float(self._take(key, default, fits, "a number from 0 to 1"))

    def flag(self, key: str) -> bool | None:
        """True or false, None if the key is not there."""
        value = self._values.get(key)
        return self._take(key, None, value is None or isinstance(value, bool), "true or false")

    def scheduler(self, key: str, config: Mapping[str, Any]) -> Scheduler:
        default = scheduler_of(str(config.get("_class_name"))) or Scheduler.EULER
        names = {one.value: one for one in Scheduler}
        value = self._values.get(key, default.value)
        fits = isinstance(value, str) and value.lower() in names
        taken = self._take(key, default.value, fits, f"one of {', '.join(names)}")
        return names[taken.lower()]

    def choice(self, key: str, allowed: Sequence[str]) -> str | None:
        """One of the allowed texts, None if the key is not there."""
        value = self._values.get(key)
        return self._take(key, None, value is None or value in allowed, f"one of {', '.join(allowed)}")

    def matrix(
        self, key: str, default: tuple[tuple[float, float, float], ...], *, rows: int
    ) -> tuple[tuple[float, float, float], ...]:
        """Rows of three numbers; a single row may stand without its outer brackets."""
        value = self._values.get(key, [list(row) for row in default])
        if rows == 1 and isinstance(value, list) and len(value) == 3:
            value = [value]
        fits = isinstance(value, list) and len(value) == rows and all(_is_rgb(row) for row in value)
        self._take(key, value, fits, f"{rows} row(s) of three numbers")
        return tuple((float(r), float(g), float(b)) for r, g, b in value)

    def refuse_the_rest(self) -> None:
        if self._values:
            raise ModelError(f"{self._path} has unknown keys: {', '.join(sorted(self._values))}")

    def _take(self, key: str, default: T, fits: bool, wanted: str) -> T:
        """Take the value out; `fits` says whether it is what `wanted` names."""
        if not fits:
            raise ModelError(f"{key} in {self._path} must be {wanted}")
        value: T = self._values.pop(key, default)
        return value


def _is_rgb(row: object) -> bool:
    return isinstance(row, list) and len(row) == 3 and all(isinstance(v, int | float) for v in row)
