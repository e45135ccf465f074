"""A byte-level BPE vocabulary of about 1,000 tokens in CLIP's files, learned from the captions."""

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np

from .captions import PREFIXES, SUFFIXES, caption, training_specs

START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"
VOCABULARY = 1000
MAX_LENGTH = 77
EXTRA_TEXT = """
a an and are as at be beautiful best big blur blurry bottom bright brown by card center child children
circle city clean color colour computer cute dark deformed detailed digital drawing dream evening face
fine flat floating for forest from fun game garden gold good green happy high house in ink is isolated it
landscape large left light line little low made magic many masterpiece minimal modern moon morning
mountain nature night no noise not of oil old on one outline paint paper pastel pattern pencil people
photo picture poster pretty quality render retro right round sea shadow shape sharp shiny silver simple
sketch sky small smooth soft solid space style summer sun tall texture the thick thin three time to top
toy two ugly under vintage warm water watercolor white wide winter with without wood world worst
"""


def byte_alphabet() -> list[str]:
    """The 256 printable characters that stand for bytes in CLIP's vocabulary, in its order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(b) for b in printable] + [chr(256 + n) for n in range(256 - len(printable))]


def word_counts() -> Counter[str]:
    """How often each word stands in a sample of the captions, plus words of other people's prompts."""
    rng = np.random.default_rng(3)
    specs = training_specs()
    counts: Counter[str] = Counter()
    for _ in range(6000):
        text = caption(specs[int(rng.integers(len(specs)))], rng).text
        counts.update("".join(c if c.isalpha() else " " for c in text).split())
    counts.update(
        dict.fromkeys("".join((*PREFIXES, *SUFFIXES)).replace(",", " ").replace(".", " ").split(), 40)
    )
    counts.update(dict.fromkeys(EXTRA_TEXT.split(), 5))
    return counts


def learn_merges(counts: Counter[str], limit: int) -> list[tuple[str, str]]:
    """At most `limit` merges, the most frequent pair first (Sennrich et al. 2016), ties by the alphabet."""
    words = {(*word[:-1], word[-1] + WORD_END): n for word, n in counts.items()}
    merges: list[tuple[str, str]] = []
    while len(merges) < limit:
        pairs: Counter[tuple[str, str]] = Counter()
        for symbols, n in words.items():
            for pair in pairwise(symbols):
                pairs[pair] += n
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        words = {_merged(symbols, best): n for symbols, n in words.items()}
    return merges


def _merged(symbols: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    out: list[str] = []
    i = 0
    while i < len(symbols):
        if symbols[i : i + 2] == pair:
            out.append(symbols[i] + symbols[i + 1])
            i += 2
        else:
            out.append(symbols[i])
            i += 1
    return tuple(out)


def build(folder: Path) -> int:
    """Write the tokenizer's folder in diffusers' layout; returns the size of the vocabulary."""
    alphabet = byte_alphabet()
    tokens = alphabet + [c + WORD_END for c in alphabet]
    merges = learn_merges(word_counts(), VOCABULARY - len(tokens) - 2)
    tokens += ["".join(pair) for pair in merges] + [START, END]
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {token: i for i, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": MAX_LENGTH,
        "do_lower_case": True,
        **special,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n", encoding="utf-8")
    return len(vocabulary)
