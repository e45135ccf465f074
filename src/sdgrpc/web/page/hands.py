"""What the page's events do."""

from __future__ import annotations

import io
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import gradio as gr
from PIL import Image

from sdgrpc.client import AsyncClient, LoraFile, Model, SdgrpcServerError
from sdgrpc.client.aio import with_token
from sdgrpc.parameters import NoParameters, read_parameters, text_of_picture
from sdgrpc.parameters.words import missing_words
from sdgrpc.web.page.beside import thumbnails
from sdgrpc.web.page.drawing import SEEDS, Artist, Running, Update
from sdgrpc.web.page.fields import INFOS
from sdgrpc.web.page.form import Form
from sdgrpc.web.page.loras import choices, found
from sdgrpc.web.page.marks import by_field, marked
from sdgrpc.web.page.restoring import restored
from sdgrpc.web.page.stage import Stage

Changes = dict[str, Any]
"""Component's name -> its new value or update."""


@dataclass
class Hands:
    """The events of all open pages."""

    client: AsyncClient
    artist: Artist = field(default_factory=lambda: Artist(Running()))

    def client_of(self, token: str | None) -> AsyncClient:
        """Return the client with the page's token, where it has one.

        Raises:
            ValueError: a header cannot carry it.

        """
        token = (token or "").strip()
        return with_token(self.client, token) if token else self.client

    async def opened(self, token: str | None) -> Changes:
        """Fill in what the server has, or ask for a token that it takes."""
        try:
            client = self.client_of(token)
            models = await client.list_models()
            files = await found(client, models[0].name)
        except SdgrpcServerError as error:
            wrong = by_field(error, "")
            if "token" not in wrong:
                raise gr.Error(
                    f"The server does not answer: {error.message}", print_exception=False
                ) from None
            return {"token": _asked(error.message)}
        except ValueError as error:
            return {"token": _asked(str(error))}
        first = models[0]
        return {
            **marked({"token": INFOS["token"]}, {}, ["token"]),
            "models": {one.name: one for one in models},
            "model": gr.update(choices=[one.name for one in models], value=first.name),
            "files": files,
            "loras": gr.update(choices=choices(files)),
            **_defaults(first),
        }

    async def model_chosen(self, model: str, models: dict[str, Model], token: str | None) -> Changes:
        """Take another model's own size, steps and guidance, and tell which LoRAs fit it."""
        if model not in models:
            return {}
        files = await found(self.client_of(token), model)
        return {"files": files, "loras": gr.update(choices=choices(files)), **_defaults(models[model])}

    async def pictured(
        self, chosen: list[str], files: dict[str, LoraFile], known: dict[str, str], token: str | None
    ) -> dict[str, str]:
        """Fetch the thumbnails of chosen LoRAs that are not there yet."""
        try:
            return await thumbnails(self.client_of(token), chosen, files, known)
        except ValueError:  # no token that a header can carry: the page says so elsewhere
            return known

    async def draw(self, values: Changes, request: gr.Request, *, strip: bool) -> AsyncGenerator[Update]:
        """Draw for the page that asks."""
        files = values["files"]
        unfit = frozenset(name for name in values["loras"] or () if name not in files or not files[name].fits)
        form = Form(values, values["strengths"] or {}, unfit)
        draw = self.artist.strip if strip else self.artist.draw
        try:
            client = self.client_of(values["token"])
        except ValueError as error:
            yield Update(Stage(state="failed", said=str(error)), wrong={"token": str(error)})
            return
        async with aclosing(draw(client, form, str(request.session_hash))) as updates:
            async for update in updates:
                yield update

    def cancel(self, request: gr.Request) -> None:
        """Cancel what the page draws: by its button, or because it is gone."""
        self.artist.running.cancel(str(request.session_hash))

    async def from_text(self, text: str, values: Changes) -> Changes:
        """Bring parameters back, with the model that they name where it is served."""
        changes, strengths, notes = restored(text, values["models"], values["files"])
        model = str(changes.get("model", values["model"]))
        if model != values["model"]:
            files = await found(self.client_of(values["token"]), model)
            own = {**_defaults(values["models"][model]), "files": files}
            changes = own | changes | {"loras": gr.update(choices=choices(files), value=changes["loras"])}
        notes += await self._words(text, model, values["token"])
        said = "; ".join(notes) if notes else "Everything was brought back."
        kept = {**(values["strengths"] or {}), **strengths}
        return {**changes, "strengths": kept, "restores": values["restores"] + 1, "notes": said}

    async def _words(self, text: str, model: str, token: str | None) -> list[str]:
        """Say which textual inversions of a picture are not here."""
        used = read_parameters(text).embeddings
        known = await self.client_of(token).list_embeddings(model=model) if used else ()
        return [*missing_words(used, ((one.name, one.sha256) for one in known if one.fits))]

    async def from_file(self, data: bytes | None, values: Changes) -> Changes:
        """Bring a picture's parameters back."""
        if not data:
            return {}
        try:
            return await self.from_text(text_of_picture(data), values)
        except NoParameters as error:
            return {"notes": f"The picture {error}."}

    @staticmethod
    def new_seed() -> Changes:
        """Throw the die, and keep what it shows."""
        return {"seed": str(secrets.randbelow(SEEDS)), "locked": True}

    @staticmethod
    def picture(drawn: list[bytes]) -> Image.Image | None:
        """Return the first picture that was drawn last."""
        return Image.open(io.BytesIO(drawn[0])).convert("RGB") if drawn else None


def _defaults(model: Model) -> Changes:
    return {name: getattr(model, name) for name in ("width", "height", "steps", "guidance_scale")}


def _asked(said: str) -> Any:  # noqa: ANN401 - Gradio's updates
    return gr.update(visible=True, info=f"⚠ {said}", elem_classes=["wrong"])
