"""The bases, said once."""

from __future__ import annotations

from pathlib import Path

import pytest

import sdgrpc
from sdgrpc.domain.bases import BASES, OWN, UNKNOWN, base_of_width
from sdgrpc.embedded import EMBEDDED
from sdgrpc.lora.bases.architectures import PLANS, index, known_bases

SOURCES = {path: path.read_text("utf-8") for path in Path(sdgrpc.__file__).parent.rglob("*.py")}


def test_widths_are_those_of_the_architectures() -> None:
    """What tells the bases apart is what their UNets attend to; another width is of our own kind."""
    for name in PLANS:
        assert index(name).cross_attention_width == BASES[name].width
        assert base_of_width(index(name).cross_attention_width) == name
    assert base_of_width(64) == base_of_width(index(OWN).cross_attention_width) == OWN
    assert set(known_bases()) == set(BASES)
    assert UNKNOWN not in BASES
    assert OWN == EMBEDDED


@pytest.mark.parametrize(
    "said", [f'"{base.title}"' for base in BASES.values()] + ['"SD1.5"', '"SD2"', '"SDXL"']
)
def test_titles_are_said_once(said: str) -> None:
    """No other file has them."""
    assert [path.name for path, text in SOURCES.items() if said in text] == ["bases.py"]


@pytest.mark.parametrize("said", ["no model {name!r} here", "is unset, which means {DEFAULT_LORA_STRENGTH}"])
def test_sentences_are_said_once(said: str) -> None:
    """A model that is not served, and a strength that is not given, are told of in one place."""
    assert sum(text.count(said) for text in SOURCES.values()) == 1
