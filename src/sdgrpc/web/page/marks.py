"""A failure -> the field of the form that it stands at, and how the field says it."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import gradio as gr

from sdgrpc.client import NotFoundError, PermissionDeniedError, SdgrpcServerError, UnauthenticatedError

LABELLED = ("image", "editor")
"""Components that have no line of information; their label says it."""
_FIELDS = {
    "image_count": "count",
    "sigma_spacing": "spacing",
    "timestep_spacing": "spacing",
    "blur": "mask_blur",
    "second_pass": "second_scale",
}


def by_field(error: SdgrpcServerError, mode: str) -> dict[str, str]:
    """Return what is wrong by component; `""` is what belongs to none."""
    if error.violations:
        found: dict[str, str] = {}
        for one in error.violations:
            name = component(one.field, mode)
            found[name] = f"{found[name]}; {one.description}" if name in found else one.description
        return found
    if isinstance(error, (UnauthenticatedError, PermissionDeniedError)):
        return {"token": error.message}
    if isinstance(error, NotFoundError) and error.resource is not None:
        return {"loras" if error.resource.type.endswith("Lora") else "model": error.message}
    if error.reason.startswith("LORA_"):
        return {"loras": error.message}
    return {"": error.message or error.code}


def component(field: str, mode: str) -> str:
    """Return the component for a field of the contract: `count` for `sampling.image_count`."""
    name = re.sub(r"^(sampling|output\.preview|output|mask_options|source)\.", "", field)
    top = re.split(r"[.\[]", name)[0]
    if mode == "mask":
        top = {"image": "editor", "mask": "editor", "strength": "mask_strength"}.get(top, top)
    return _FIELDS.get(top, top)


def marked(
    texts: Mapping[str, str], wrong: Mapping[str, str], before: Collection[str] = ()
) -> dict[str, Any]:
    """Return updates that mark what is wrong, and take the marks off what was before.

    `texts` has the component's own words by name: its label for those of LABELLED, else its information.
    """
    changes: dict[str, Any] = {}
    for name in ({*wrong, *before}) & set(texts):
        said, classes = wrong.get(name), ["wrong"] if name in wrong else []
        words: dict[str, Any] = {
            "label" if name in LABELLED else "info": f"⚠ {said}" if said else texts[name]
        }
        if name == "token" and said:
            words["visible"] = True
        changes[name] = gr.update(**words, elem_classes=classes)
    return changes
