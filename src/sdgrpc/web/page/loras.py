"""LoRA files as the form offers them: found by name, trigger word or base; those that do not fit say why."""

from __future__ import annotations

from html import escape

from sdgrpc.client import AsyncClient, LoraFile

Choices = list[tuple[str, str]]


async def found(client: AsyncClient, model: str) -> dict[str, LoraFile]:
    """Return the server's files by name, those that fit `model` first."""
    files = [one async for one in client.list_loras(model=model)]
    return {one.name: one for one in sorted(files, key=lambda one: (not one.fits, one.name))}


def choices(files: dict[str, LoraFile]) -> Choices:
    """Return labels, which typing searches, and names."""
    return [(_label(one), one.name) for one in files.values()]


def _label(file: LoraFile) -> str:
    words = ", ".join(file.trigger_words[:4])
    label = " · ".join(part for part in (file.name, words, file.base) if part)
    return label if file.fits else f"⊘ {label} · does not fit"


def heading(file: LoraFile) -> str:
    """Return the head of a LoRA's row."""
    said = [file.base, *(f"trigger: {word}" for word in file.trigger_words[:4]), file.made_for]
    small = escape(" · ".join(filter(None, said)))
    return f'<div class="lora-head"><b>{escape(file.name)}</b> <small>{small}</small></div>'


def unfit(name: str, refusal: str) -> str:
    """Return the row of a LoRA that is left out."""
    return f'<div class="unfit"><b>⊘ {escape(name)}</b> is left out: {escape(refusal)}</div>'
