"""Events -> hands -> components."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import gradio as gr

from sdgrpc.web.page.drawing import Update
from sdgrpc.web.page.form import MASK, PICTURE
from sdgrpc.web.page.hands import Changes, Hands
from sdgrpc.web.page.history import gallery, parameters_of, with_result
from sdgrpc.web.page.marks import LABELLED, marked
from sdgrpc.web.page.report import report

FORM = (
    *("prompt", "negative_prompt", "loras", "model", "width", "height", "count", "steps", "guidance_scale"),
    *("scheduler", "spacing", "seed", "locked", "image", "strength", "editor", "mask_strength", "mask_blur"),
    *("second_scale", "second_strength"),
    *("token", "mode", "files", "models", "strengths", "shown_seed", "restores"),
)
_UNMARKED = ("locked", "mode", "files", "models", "strengths", "shown_seed", "restores")
MARKED = tuple(name for name in FORM if name not in _UNMARKED)
"""Components that can be marked as wrong."""
OUTCOME = (
    *("stage", "report", "text", "after", "drawn", "past", "gallery"),
    *("draw", "cancel", "strip", "seed", "shown_seed"),
)
RESTORED = (
    *("prompt", "negative_prompt", "loras", "model", "width", "height", "steps", "guidance_scale"),
    *("scheduler", "spacing", "seed", "locked", "strengths", "files", "restores", "notes"),
    *("second_scale", "second_strength"),
)
QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}


class Wired:
    """Turns names into components and back."""

    def __init__(self, parts: dict[str, Any]) -> None:
        self.parts = parts
        self.texts: dict[str, str] = {
            name: parts[name].label if name in LABELLED else getattr(parts[name], "info", None) or ""
            for name in MARKED
        }

    def of(self, *names: str) -> list[Any]:
        """Return components."""
        return [self.parts[name] for name in names]

    def named(self, changes: Changes) -> dict[Any, Any]:
        """Return changes by component."""
        return {self.parts[name]: value for name, value in changes.items()}


def wire(page: gr.Blocks, parts: dict[str, Any], hands: Hands) -> None:
    """Connect everything."""
    parts["mode"] = parts["mode_state"]
    parts["marks"] = gr.State(frozenset())
    wired = Wired(parts)
    _opening(page, wired, hands)
    _drawing(wired, hands)
    _afterwards(wired, hands)
    _restoring(wired, hands)
    page.unload(hands.cancel)


def _opening(page: gr.Blocks, wired: Wired, hands: Hands) -> None:
    defaults = ("files", "loras", "width", "height", "steps", "guidance_scale")

    async def opened(token: str | None, past: list[dict[str, Any]]) -> dict[Any, Any]:
        return wired.named(await hands.opened(token) | {"gallery": gallery(past)})

    async def chosen(model: str, models: dict[str, Any], token: str | None) -> dict[Any, Any]:
        return wired.named(await hands.model_chosen(model, models, token))

    async def pictured(chosen: list[str] | None, files: Any, known: Any, token: str | None) -> Any:  # noqa: ANN401
        found = await hands.pictured(chosen or [], files, known, token)
        return gr.skip() if found == known else found

    quiet: dict[str, Any] = {**QUIET, "queue": True, "concurrency_limit": None}
    shown = wired.of("loras", "files", "thumbnails", "token")
    wired.parts["loras"].change(pictured, shown, wired.parts["thumbnails"], **quiet)
    inputs, outputs = wired.of("token", "past"), wired.of("token", "models", "model", *defaults, "gallery")
    gr.on([page.load, wired.parts["token"].submit], opened, inputs, outputs, trigger_mode="multiple", **quiet)
    wired.parts["model"].input(chosen, wired.of("model", "models", "token"), wired.of(*defaults), **quiet)


def _drawing(wired: Wired, hands: Hands) -> None:
    def drawer(*, strip: bool) -> Callable[..., AsyncIterator[dict[Any, Any]]]:
        async def draw(request: gr.Request, *given: Any) -> AsyncIterator[dict[Any, Any]]:  # noqa: ANN401
            values = dict(zip((*FORM, "past", "marks"), given, strict=True))
            busy = {"draw": _able(False), "strip": _able(False), "cancel": _able(True), "marks": frozenset()}
            yield wired.named({**busy, **marked(wired.texts, {}, values["marks"])})
            drawing = hands.draw(values, request, strip=strip)
            async for update in drawing:
                yield wired.named(_changes(wired, update, values))
            yield wired.named({"draw": _able(True), "strip": _able(True), "cancel": _able(False)})

        return draw

    outputs = wired.of(*dict.fromkeys((*OUTCOME, *MARKED, "marks")))
    inputs = wired.of(*FORM, "past", "marks")
    options: dict[str, Any] = {
        "show_progress": "hidden",
        "concurrency_limit": None,
        "api_visibility": "private",
        "trigger_mode": "once",
    }
    gr.on(
        [wired.parts["draw"].click, wired.parts["prompt"].submit],
        drawer(strip=False),
        inputs,
        outputs,
        **options,
    )
    wired.parts["strip"].click(drawer(strip=True), inputs, outputs, **options)
    wired.parts["cancel"].click(hands.cancel, None, None, **QUIET)


def _changes(wired: Wired, update: Update, values: Changes) -> Changes:
    changes: Changes = {"stage": update.stage.html()}
    if update.wrong:
        changes |= marked(wired.texts, update.wrong) | {"marks": frozenset(update.wrong)}
    if update.results:
        past = values["past"]
        for result in update.results:
            past = with_result(past, result)
        images = [image.image.data for result in update.results for image in result.images]
        changes |= {
            "report": "".join(map(report, update.results)),
            "text": gr.update(value=parameters_of(images[0]), visible=True),
            "after": gr.update(visible=True),
            "drawn": images,
            "past": past,
            "gallery": gallery(past),
            "seed": str(update.seed),
            "shown_seed": str(update.seed),
        }
    return changes


def _afterwards(wired: Wired, hands: Hands) -> None:
    def as_input(drawn: list[bytes]) -> dict[Any, Any]:
        return wired.named(
            {"image": hands.picture(drawn), "tabs": gr.update(selected=PICTURE), "mode": PICTURE}
        )

    def to_mask(drawn: list[bytes]) -> dict[Any, Any]:
        picture = hands.picture(drawn)
        canvas: dict[str, Any] = {"background": picture, "layers": [], "composite": None}
        return wired.named({"editor": canvas, "tabs": gr.update(selected=MASK), "mode": MASK})

    drawn, parts = wired.of("drawn"), wired.parts
    parts["as_input"].click(as_input, drawn, wired.of("image", "tabs", "mode"), **QUIET)
    parts["to_mask"].click(to_mask, drawn, wired.of("editor", "tabs", "mode"), **QUIET)
    parts["same_seed"].click(lambda: True, None, parts["locked"], **QUIET)
    both = wired.of("seed", "locked")
    parts["die"].click(lambda: wired.named(hands.new_seed()), None, both, **QUIET)
    # Not `input`, which Gradio leaves out where a seed is pasted.
    parts["seed"].change(_locking, wired.of("seed", "shown_seed"), parts["locked"], **QUIET)
    parts["locked"].input(lambda seed: seed, parts["seed"], parts["shown_seed"], **QUIET)


def _locking(seed: str, shown: str | None) -> Any:  # noqa: ANN401 - Gradio's updates
    """Lock a seed that somebody entered; one that the page shows after drawing is none of those."""
    return gr.skip() if seed == shown else bool(seed.strip())


def _restoring(wired: Wired, hands: Hands) -> None:
    async def from_file(data: bytes | None, *given: Any) -> dict[Any, Any]:  # noqa: ANN401
        return wired.named(await hands.from_file(data, dict(zip(FORM, given, strict=True))))

    async def from_past(event: gr.SelectData, past: list[dict[str, Any]], *given: Any) -> dict[Any, Any]:  # noqa: ANN401
        text = past[int(event.index)]["text"]
        return wired.named(await hands.from_text(text, dict(zip(FORM, given, strict=True))))

    form, outputs, parts = wired.of(*FORM), wired.of(*RESTORED), wired.parts
    parts["from_file"].upload(from_file, [parts["from_file"], *form], outputs, **QUIET)
    parts["gallery"].select(from_past, [parts["past"], *form], outputs, **QUIET)


def _able(is_able: bool) -> Any:  # noqa: ANN401 - Gradio's updates
    return gr.update(interactive=is_able)
