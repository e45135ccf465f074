r"""`<lora:name:0.8>` in a prompt: taken out, and applied to the model.

`<lora:name>` is 1, `<lora:name:0.8>` both strengths, `<lora:name:0.8:0.4>` the UNet's and then the text
encoders', as everywhere in this project; `te=` and `unet=` say which, and `lbw=` are strengths by block,
not read here. A1111's web UI has two plain numbers the other way round, so its pictures are read by
`web_ui`, and ours have `te=` and `unet=`, which both read alike. Source:
`extensions-builtin/Lora/extra_networks_lora.py` and `modules/extra_networks.py` of
https://github.com/AUTOMATIC1111/stable-diffusion-webui.

What the web UI cannot write is escaped by a backslash: `\:` and `\>` in a name, `\<` before what is no tag.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", re.ASCII)

NUMBERS = ("te", "unet", "start", "end")
"""Arguments of a tag that are numbers."""

_ESCAPED = r"\\[\\:<>=]"
_PLAIN_BACKSLASH = r"\\(?![\\:<>=])"
_TAG = re.compile(
    rf"\\.|<(?P<kind>\w+):(?P<body>(?:{_ESCAPED}|{_PLAIN_BACKSLASH}|[^>\\])+)>|<(?P<open>lora|lyco|hypernet):",
    re.DOTALL,
)
_ITEM = re.compile(rf"(?:{_ESCAPED}|{_PLAIN_BACKSLASH}|[^:\\])*")
_ESCAPE = re.compile(r"\\([\\:<>=])")
_AIR = re.compile(
    r"(?:[\w-]+:)*civitai:[0-9]+(?:@[0-9]+)?(?:\+[0-9]+)?(?:\.\w+)?(?=:|$)", re.ASCII | re.IGNORECASE
)

REFUSED_KINDS: Mapping[str, str] = {
    "lyco": "is not read; write <lora:name:strength>, which takes LyCORIS files too",
    "hypernet": "is not read: hypernetworks are not applied",
}
BLANKS = " \t\r\n"
"""White space that no tokenizer sees at a prompt's ends."""
SHOWN = 60
"""Characters of a name in a sentence about it."""


@dataclass(frozen=True, slots=True)
class LoraTag:
    """A LoRA by its name, and how strongly it changes the UNet and the text encoders.

    `block_weights` is what stands after `lbw=`, as the extension LoRA Block Weight has it; empty without.
    `start` and `end` are shares of the schedule.
    """

    name: str
    strength: float = 1.0
    text_encoder_strength: float = 1.0
    block_weights: str = ""
    start: float = 0.0
    end: float = 1.0

    def __str__(self) -> str:
        r"""The tag, as short as it can be: `<lora:name:0.8>`, or `<lora:name:te=0.4:unet=0.8>`.

        `:` and `>` in the name have a backslash before them, which the web UI cannot read.
        """
        name = re.sub(r"([\\:>])", r"\\\1", self.name)
        more = f":lbw={self.block_weights}" if self.block_weights else ""
        more += f":start={decimal(self.start)}" if self.start > 0 else ""
        more += f":end={decimal(self.end)}" if self.end < 1 else ""
        if self.strength == self.text_encoder_strength:
            return f"<lora:{name}:{decimal(self.strength)}{more}>"
        strengths = f"te={decimal(self.text_encoder_strength)}:unet={decimal(self.strength)}"
        return f"<lora:{name}:{strengths}{more}>"


@dataclass(frozen=True, slots=True)
class TaggedPrompt:
    """A prompt without its tags, the LoRAs that they name in their order, and what is wrong with them.

    `faults` are predicates: "holds …". `text` is the prompt itself where it has no tags.
    """

    text: str
    loras: tuple[LoraTag, ...] = ()
    faults: tuple[str, ...] = ()


@dataclass(slots=True)
class _Found:
    loras: list[LoraTag] = field(default_factory=list)
    faults: dict[str, None] = field(default_factory=dict)
    count: int = 0


def take_tags(prompt: str, *, web_ui: bool = False) -> TaggedPrompt:
    """Take every tag out of a prompt; the web UI leaves the same, but for white space at its ends.

    Never raises: tags that are not read are in `faults`. With `web_ui` the first of two plain numbers is the
    text encoders', as A1111 has it.
    """
    found = _Found()

    def take(match: re.Match[str]) -> str:
        if match["kind"] is None and match["open"] is None:
            return match[0]  # a backslash and what it escapes
        found.count += 1
        if match["open"] is not None:
            found.faults[f"holds <{match['open']}: without a name or without the > at its end"] = None
        elif match["kind"] == "lora":
            _read_lora(match["body"], found, ("te", "unet") if web_ui else ("unet", "te"))
        else:
            found.faults[f"holds <{match['kind'][:SHOWN]}:…>, which {_why(match['kind'])}"] = None
        return ""

    text = _TAG.sub(take, prompt)
    return TaggedPrompt(
        text.strip(BLANKS) if found.count else prompt, tuple(found.loras), tuple(found.faults)
    )


def decimal(value: float) -> str:
    """The shortest decimal that is the number: `0.8`, `1`, `1e-07`."""
    return repr(float(value)).removesuffix(".0")


def shown(name: str) -> str:
    """A tag as a sentence can name it: only its name, cut, and printable."""
    short = name if len(name) <= SHOWN else f"{name[: SHOWN - 1]}…"
    return f"<lora:{''.join(sign if sign.isprintable() else '?' for sign in short)}>"


def _why(kind: str) -> str:
    known = REFUSED_KINDS.get(kind)
    return known or r"is not read; only <lora:name:strength> is. Write \< for a bracket that is text"


def _read_lora(body: str, found: _Found, order: tuple[str, str]) -> None:
    name, *arguments = _named_by_id(body) or _items(body)
    if not name:
        found.faults["holds <lora: without a name"] = None
        return
    positional = [argument for argument in arguments if argument.count("=") != 1]
    named = dict(argument.split("=") for argument in arguments if argument.count("=") == 1)
    faults = list(_unread(positional, named))
    # One number is both strengths: the UNet's follows the text encoders' where it is not given.
    names = ("te",) if len(positional) == 1 else order
    plain = dict(zip(names, positional, strict=False))
    numbers = {key: text.strip() for key, text in (plain | named).items()}
    faults += [
        rf"{key} is no number; write <lora:name:0.8>, and \: for a colon in the name"
        for key, text in numbers.items()
        if key in NUMBERS and not NUMBER.fullmatch(text)
    ]
    if faults:
        found.faults |= dict.fromkeys(f"holds {shown(name)}, of which {fault}" for fault in faults)
        return
    text_encoder = float(numbers.get("te", 1.0))
    unet = float(numbers.get("unet", text_encoder))
    start, end = float(numbers.get("start", 0.0)), float(numbers.get("end", 1.0))
    found.loras.append(LoraTag(name, unet, text_encoder, numbers.get("lbw", ""), start, end))


def _unread(positional: list[str], named: dict[str, str]) -> Iterator[str]:
    """Say which of a tag's arguments would be lost."""
    if len(positional) > 2:
        yield "the third argument (dyn) is not applied; leave it out"
    for key in named:
        if key not in (*NUMBERS, "lbw"):
            yield f"{key[:SHOWN]!r} is not applied; leave it out"
    if not named.get("lbw", "some").strip():
        yield "lbw is empty"


def _named_by_id(body: str) -> list[str]:
    """The items of a tag whose name is an id of CivitAI's, the colons of which need no backslash."""
    found = _AIR.match(body)
    return (
        []
        if found is None
        else [found[0], *_items(body[found.end() + 1 :])][: 1 if found.end() == len(body) else None]
    )


def _items(body: str) -> list[str]:
    """What stands between colons that have no backslash before them."""
    items, position = [], 0
    while position <= len(body):
        match = _ITEM.match(body, position)
        end = match.end() if match else position
        items.append(_ESCAPE.sub(r"\1", body[position:end]))
        position = end + 1
    return items
