"""The key `loras`: texts as the command line takes them, objects, or JSON in a form."""

from __future__ import annotations

import json
from collections.abc import Mapping

from sdgrpc.client import Lora
from sdgrpc.web.failures import Refused
from sdgrpc.web.values import Reader, flag, kind, number, text


def _block_weights(key: str, value: object) -> object:
    """A text as after `lbw=`, a list of numbers, or an object by names; what is in them is read by `Lora`."""
    if not isinstance(value, (str, list, dict)):
        raise Refused(f"{key} is a text, a list or an object, not {kind(value)}", key, "invalid_type")
    return value


def _grid(key: str, value: object) -> list[float]:
    """A list of strengths."""
    if not isinstance(value, list):
        raise Refused(f"{key} is a list, not {kind(value)}", key, "invalid_type")
    return [number(f"{key}[{index}]", one) for index, one in enumerate(value)]


_FIELDS: Mapping[str, Reader] = {
    "name": text,
    "sha256": text,
    "strength": number,
    "text_encoder_strength": number,
    "strict": flag,
    "strength_grid": _grid,
    "start": number,
    "end": number,
    "block_weights": _block_weights,
}


def read_loras(key: str, value: object) -> list[Lora]:
    """Return the LoRAs of a list; a text is one of them, or a JSON list."""
    if isinstance(value, str):
        value = _parsed(key, value) if value.lstrip().startswith("[") else [value]
    if not isinstance(value, list):
        raise Refused(f"{key} is a list, not {kind(value)}", key, "invalid_type")
    return [_lora(f"{key}[{index}]", one) for index, one in enumerate(value)]


def _parsed(key: str, value: str) -> object:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise Refused(f"{key} is no JSON list", key) from None


def _lora(key: str, value: object) -> Lora:
    try:
        if isinstance(value, str):
            return Lora.parse(text(key, value))
        if not isinstance(value, dict):
            raise Refused(f"{key} is a text or an object, not {kind(value)}", key, "invalid_type")
        found = {}
        for name, one in value.items():
            if name not in _FIELDS:
                raise Refused(
                    f"Unknown parameter: '{key}.{name[:100]}'", f"{key}.{name[:100]}", "unknown_parameter"
                )
            if one is not None:
                found[name] = _FIELDS[name](f"{key}.{name}", one)
        return Lora(**found)  # type: ignore[arg-type]  # each was read by its kind
    except ValueError as error:
        raise Refused(f"{key}: {error}", key) from None
