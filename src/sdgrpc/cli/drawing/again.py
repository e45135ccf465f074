"""`--from picture.png`: what a picture's own text says, for whatever no flag says otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import typer

from sdgrpc.client import Client, Lora, LoraFile, LoraNotFoundError, Options
from sdgrpc.parameters import NoParameters, Parameters, PictureLora, read_parameters, text_of_picture
from sdgrpc.parameters.words import missing_words
from sdgrpc.prompting.tags import take_tags
from sdgrpc.terminal.text import printable

INLINE = "(inline)"
"""What a LoRA is called that came in a request, without a name."""


def read_picture(path: Path) -> Parameters:
    """Read a picture's parameters, and say on standard error what of them cannot be used.

    Raises:
        OSError: the file cannot be read.
        ValueError: it has no parameters.

    """
    from PIL import Image  # here, so that `--help` answers without it

    try:
        parameters = read_parameters(text_of_picture(path.read_bytes()))
    except NoParameters as error:
        raise ValueError(f"--from {path}: {error}") from None
    with Image.open(path) as image:
        size = image.size
    if _keeps_size(parameters, size):
        parameters = replace(parameters, width=None, height=None)
    for note in parameters.notes:
        say(note)
    return parameters


def _keeps_size(parameters: Parameters, size: tuple[int, int]) -> bool:
    """Whether a picture has the size of the one that it was made of, and not that in which it was drawn.

    With a crop it has that too, but the size in which it was drawn can have been asked for.
    """
    drawn = parameters.width, parameters.height
    ours = parameters.is_ours and parameters.second_pass is None
    return ours and parameters.crop_padding is None and size != drawn


def say(note: str) -> None:
    """Tell the user of something about the picture that may surprise."""
    typer.echo(printable(f"note: {note}"), err=True)


def completed(client: Client, given: Options, prompt: str | None, picture: Parameters) -> tuple[str, Options]:
    """Return the prompt and the client's arguments: those given, and the picture's for the others.

    A prompt that names LoRAs goes before the picture's LoRAs, too.
    """
    options: Options = {
        "negative_prompt": picture.negative_prompt,
        "steps": picture.steps or 0,
        "guidance_scale": picture.guidance_scale,
        "scheduler": picture.scheduler,
        "sigma_spacing": picture.sigma_spacing,
        "timestep_spacing": picture.timestep_spacing,
        "guidance_rescale": picture.guidance_rescale,
        "guidance_interval": picture.guidance_interval,
        "variation": picture.variation,
        "tiling": picture.tiling,
        "decoder": picture.decoder,
        "seed": picture.seed,
        "clip_skip": picture.clip_skip or 0,
    }
    if "scheduler" not in given:
        options |= {"eta": picture.eta, "gamma": picture.gamma, "step_reuse": picture.step_reuse}
    if given.get("sigma_spacing") or given.get("timestep_spacing"):
        options |= {"sigma_spacing": None, "timestep_spacing": None}
    if not (given.get("width") or given.get("height")):
        options |= {"width": picture.width or 0, "height": picture.height or 0}
    if "model" not in given:
        options["model"] = _model(client, picture)
    if "loras" not in given and not take_tags(prompt or "").loras:
        options["loras"] = [_lora(client, lora) for lora in picture.loras]
    if picture.embeddings and prompt is None:
        known = client.list_embeddings(model=str(given.get("model") or options.get("model") or ""))
        for note in missing_words(picture.embeddings, ((one.name, one.sha256) for one in known if one.fits)):
            say(note)
    flags = {name: value for name, value in given.items() if name not in ("width", "height") or value}
    return picture.prompt if prompt is None else prompt, options | flags  # type: ignore[return-value]


def _model(client: Client, picture: Parameters) -> str:
    """The name by which the server knows the picture's model: its own, or that of a model with its hash."""
    if not picture.model and not picture.model_hash:
        return ""
    models = client.list_models()
    named = next((model for model in models if model.name == picture.model), None)
    if named is not None and (not picture.model_hash or named.autov2 in ("", picture.model_hash)):
        return named.name
    wanted = picture.model_hash
    same = next((model for model in models if wanted and model.autov2 == wanted), None)
    if same is not None:
        say(f"the picture's model {picture.model!r} is called {same.name!r} here")
        return same.name
    if named is not None:
        say(f"the model {named.name!r} here is another file than the picture's")
    return picture.model


def _lora(client: Client, lora: PictureLora) -> Lora:
    """The picture's LoRA as the server knows it: by its name if that is the same file, else by its hashes."""
    file = None if lora.name == INLINE else _file(client, name=lora.name)
    if file is not None and not _differs(file, lora):
        return _named(lora.name, lora)
    same = _file(client, sha256=lora.sha256) if lora.sha256 else next(_with_hash(client, lora), None)
    if same is not None:
        say(f"the picture's LoRA {lora.name!r} is called {same.name!r} here")
        return _named(same.name, lora)
    if file is not None:
        say(f"the LoRA {lora.name!r} here is another file than the picture's")
    if lora.name == INLINE and lora.sha256:
        return replace(_named(INLINE, lora), name="", sha256=lora.sha256)
    return _named(lora.name, lora)


def _named(name: str, lora: PictureLora) -> Lora:
    """A LoRA as strong as the picture's."""
    start, end = lora.start or None, None if lora.end == 1 else lora.end
    plain = Lora(name, lora.strength, lora.text_encoder_strength, start=start, end=end)
    try:
        return replace(plain, block_weights=lora.block_weights or None)
    except ValueError as error:
        say(f"the picture's LoRA {lora.name!r} has strengths by block that are not used: {error}")
        return plain


def _file(client: Client, *, name: str = "", sha256: str = "") -> LoraFile | None:
    try:
        return client.get_lora(name, sha256=sha256).file
    except LoraNotFoundError:
        return None


def _differs(file: LoraFile, lora: PictureLora) -> bool:
    if lora.sha256:
        return file.sha256 != lora.sha256
    return bool(lora.autov3) and file.autov3 != lora.autov3


def _with_hash(client: Client, lora: PictureLora) -> Iterator[LoraFile]:
    """The server's files with the web UI's hash of a LoRA."""
    if lora.autov3:
        yield from (file for file in client.list_loras() if file.autov3 == lora.autov3)
