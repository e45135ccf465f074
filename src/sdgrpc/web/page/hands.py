"""What the page's events do."""

from __future__ import annotations

import io
import secrets
from collections.abc import AsyncIterator
from typing import Any

import gradio as gr
from PIL import Image

from sdgrpc.client import AsyncClient, SdgrpcServerError
from sdgrpc.parameters import NoParameters, text_of_picture
from sdgrpc.web.page.drawing import SEEDS, Artist, Update
from sdgrpc.web.page.form import Form
from sdgrpc.web.page.loras import choices, found
from sdgrpc.web.page.restoring import restored
from sdgrpc.web.page.running import Running

Changes = dict[str, Any]
"""Component's name -> its new value or update."""


class Hands:
    """The events of all open pages."""

    def __init__(self, client: AsyncClient) -> None:
        self.client = client
        self.running = Running()
        self.artist = Artist(client, self.running)

    async def opened(self) -> Changes:
        """Fill in what the server has."""
        try:
            models = await self.client.list_models()
            files = await found(self.client, models[0].name)
        except SdgrpcServerError as error:
            raise gr.Error(f"The server does not answer: {error.message}", print_exception=False) from None
        first = models[0]
        return {
            "model": gr.update(choices=[one.name for one in models], value=first.name),
            "files": files,
            "loras": gr.update(choices=choices(files)),
            "width": first.width,
            "height": first.height,
            "steps": first.steps,
            "guidance_scale": first.guidance_scale,
        }

    async def model_chosen(self, model: str) -> Changes:
        """Tell which LoRAs fit another model."""
        if not model:
            return {}
        files = await found(self.client, model)
        return {"files": files, "loras": gr.update(choices=choices(files))}

    def draw(self, values: Changes, request: gr.Request, *, strip: bool) -> AsyncIterator[Update]:
        """Draw for the page that asks."""
        files = values["files"]
        unfit = frozenset(name for name in values["loras"] or () if name not in files or not files[name].fits)
        form = Form(values, values["strengths"], unfit)
        draw = self.artist.strip if strip else self.artist.draw
        return draw(form, str(request.session_hash))

    def cancel(self, request: gr.Request) -> None:
        """Cancel what the page draws: by its button, or because it is gone."""
        self.running.cancel(str(request.session_hash))

    def from_text(self, text: str, values: Changes) -> Changes:
        """Bring parameters back."""
        models = [values["model"]]
        changes, strengths, notes = restored(text, models, values["files"])
        said = "; ".join(notes) if notes else "Everything was brought back."
        return {**changes, "strengths": values["strengths"] | strengths, "notes": said}

    def from_file(self, data: bytes | None, values: Changes) -> Changes:
        """Bring a picture's parameters back."""
        if not data:
            return {}
        try:
            return self.from_text(text_of_picture(data), values)
        except NoParameters as error:
            return {"notes": f"The picture {error}."}

    @staticmethod
    def new_seed() -> Changes:
        """Throw the die, and keep what it shows."""
        return {"seed": secrets.randbelow(SEEDS), "locked": True}

    @staticmethod
    def picture(drawn: list[bytes]) -> Image.Image | None:
        """Return the first picture that was drawn last."""
        return Image.open(io.BytesIO(drawn[0])).convert("RGB") if drawn else None
