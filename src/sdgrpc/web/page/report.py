"""What a finished drawing tells: its LoRAs, where the time went, and links that save it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from sdgrpc.client import Accepted, DrawnImage, Finished, LoraReport, Prepared, Result
from sdgrpc.web.page.stage import address

PARTS = (
    ("queued", "#a8a29e"),
    ("prepared", "#7c9a92"),
    ("denoised", "#d9601a"),
    ("decoded", "#e0b04f"),
)


def report(result: Result) -> str:
    """Return the report of a call as HTML."""
    return (
        f'<div class="report">{_saves(result.images)}{_warnings(result.accepted)}{_loras(result.prepared)}'
        f"{_times(result.finished)}{_facts(result.accepted)}</div>"
    )


def _saves(images: Sequence[DrawnImage]) -> str:
    links = []
    for image in images:
        suffix = image.image.media_type.rpartition("/")[2]
        name = f"{image.seed}.{suffix}"
        links.append(f'<a download="{name}" href="{address(image.image)}">Download seed {image.seed}</a>')
    return f'<div class="saves">{"".join(links)}</div>'


def _warnings(accepted: Accepted) -> str:
    return "".join(f'<div class="warn">⚠ {escape(one)}</div>' for one in accepted.warnings)


def _loras(prepared: Prepared) -> str:
    if not prepared.loras:
        return ""
    rows = "".join(map(_lora, prepared.loras))
    fused = "was fused already" if prepared.lora_set_cached else f"fused in {prepared.fuse_seconds:.3f} s"
    return (
        "<table><thead><tr><th>LoRA</th><th>strength</th><th>modules changed</th><th>norm</th></tr></thead>"
        f"<tbody>{rows}</tbody></table><div>The set {fused}.</div>"
    )


def _lora(one: LoraReport) -> str:
    modules = ", ".join(f"{count} {escape(part)}" for part, count in one.modules.items())
    notes = list(one.warnings)
    if one.unmatched_tensors:
        notes.append(f"{one.unmatched_tensors} tensors are not used")
    warned = "".join(f'<div class="warn">⚠ {escape(note)}</div>' for note in notes)
    blocks = f"<div>by block {escape(str(one.block_weights))}</div>" if one.block_weights else ""
    if one.start > 0 or one.end < 1:
        blocks += f"<div>in steps {', '.join(map(str, one.steps)) or 'none'}</div>"
    return (
        f"<tr><td>{escape(one.name)}{warned}</td>"
        f"<td>{one.strength:g} / {one.text_encoder_strength:g}{blocks}</td>"
        f"<td>{modules or 'none'}</td><td>{one.relative_norm:.3g}</td></tr>"
    )


def _times(finished: Finished) -> str:
    seconds = {name: getattr(finished, f"{name}_seconds") for name, _ in PARTS}
    bars = "".join(f'<i style="flex:{seconds[name]:.4f};background:{colour}"></i>' for name, colour in PARTS)
    said = " · ".join(f"{name} {seconds[name]:.3f} s" for name, _ in PARTS)
    return f'<div><div class="times" aria-hidden="true">{bars}</div>{said}</div>'


def _facts(accepted: Accepted) -> str:
    how, second = accepted.sampling, accepted.second_pass
    then = f", then {second.width} x {second.height}" if second is not None else ""
    return (
        f"<div>{escape(accepted.model)} · {accepted.width} x {accepted.height}{then} · {how.steps} steps of "
        f"{how.scheduler.value} · guidance {how.guidance_scale:g} · seed {how.seed}</div>"
    )
