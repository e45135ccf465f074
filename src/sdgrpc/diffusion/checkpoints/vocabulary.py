"""CLIP's vocabulary for checkpoints that come without one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from transformers import CLIPTokenizer

from sdgrpc.diffusion.checkpoints.folder import VOCABULARIES
from sdgrpc.diffusion.checkpoints.ldm.layout import TOKENS
from sdgrpc.errors import ModelError
from sdgrpc.regular_files import check_folder

# Where the hub's cache may have it, as (model, folder in it).
CACHED = (
    ("openai/clip-vit-large-patch14", ""),
    ("stable-diffusion-v1-5/stable-diffusion-v1-5", "tokenizer/"),
    ("stabilityai/stable-diffusion-xl-base-1.0", "tokenizer/"),
)
# What fills prompts up: the end of the text for OpenAI's CLIP, token 0 for OpenCLIP.
END, FIRST = "<|endoftext|>", "!"
PADDING = {"sd15": (END,), "sd2": (FIRST,), "sdxl": (END, FIRST)}


def load(checkpoint: Path, base: str, size: int, *, given: Path | None) -> dict[str, CLIPTokenizer]:
    """The tokenizers of a base, from `given`, from `tokenizer` beside the file, or from the hub's cache.

    Nothing is downloaded. `size` is the number of tokens that the text encoder knows.

    Raises:
        ModelError: there is none, or it is another vocabulary.

    """
    folder = _find(checkpoint, given)
    keys = ("tokenizer", "tokenizer_2")
    tokenizers = {key: _read(folder, padding) for key, padding in zip(keys, PADDING[base], strict=False)}
    found = len(tokenizers["tokenizer"])
    if found != size:
        raise ModelError(f"the vocabulary in {folder} has {found} tokens; {checkpoint} has {size}")
    return tokenizers


def _find(checkpoint: Path, given: Path | None) -> Path:
    """The first folder that holds a vocabulary."""
    folders = _folders(checkpoint) if given is None else iter([given])
    for folder in folders:
        if any((folder / file).is_file() for file in VOCABULARIES):
            return folder
    if given is not None:
        raise ModelError(f"{given} holds no CLIP vocabulary: neither {VOCABULARIES[0]} nor {VOCABULARIES[1]}")
    raise ModelError(
        f"{checkpoint} needs CLIP's vocabulary, which single files do not hold: put the folder `tokenizer` "
        f"of any Stable Diffusion model at {checkpoint.parent / 'tokenizer'}, "
        "name such a folder with --tokenizer, "
        f"or fetch {CACHED[0][0]} into the hub's cache"
    )


def _folders(checkpoint: Path) -> Iterator[Path]:
    yield checkpoint.parent / "tokenizer"
    for model, prefix in CACHED:
        for file in VOCABULARIES:
            path = try_to_load_from_cache(model, prefix + file)
            if isinstance(path, str):
                yield Path(path).parent


def _read(folder: Path, padding: str) -> CLIPTokenizer:
    try:
        check_folder(folder)
        return CLIPTokenizer.from_pretrained(
            folder, local_files_only=True, pad_token=padding, model_max_length=TOKENS
        )
    except Exception as error:
        # The library lets through whatever its parsers raise.
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(f"the vocabulary in {folder} cannot be read: {reason[0]}") from error
