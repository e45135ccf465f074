"""The words that authors trained on."""

from __future__ import annotations

import json

import pytest

from sdgrpc.lora.describing.metadata import FREQUENCY, MOST, PHRASE, trigger_words


def counted(folders: object) -> dict[str, str]:
    return {FREQUENCY: json.dumps(folders)}


def test_the_author_comes_first_then_the_folder_then_the_most_frequent() -> None:
    """The three sources follow each other, and no word is said twice, however it is written."""
    metadata = {PHRASE: "smf girl, Hat"} | counted(
        {"16_smf  girl": {"hat": 9, "red": 2, "blue": 2, "sky": 5}}
    )
    assert trigger_words(metadata) == ("smf girl", "Hat", "sky", "blue", "red")


def test_counts_add_up_over_folders() -> None:
    """A tag of two folders counts in both."""
    assert trigger_words(counted({"a": {"x": 3, "y": 4}, "b": {"x": 3}})) == ("x", "y")


def test_a_folder_without_repeats_names_nothing() -> None:
    """Only `number_words` is a trainer's way to name the concept."""
    assert trigger_words(counted({"img": {"x": 1}, "10_": {}, "7_cat": {}})) == ("cat", "x")


def test_there_are_at_most_twenty() -> None:
    """A long tail of tags is cut."""
    found = trigger_words(counted({"a": {f"tag{n:02}": 100 - n for n in range(50)}}))
    assert found == tuple(f"tag{n:02}" for n in range(MOST))


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {FREQUENCY: "{"},
        {FREQUENCY: "[" * 100_000},
        counted([1]),
        counted({"a": 1}),
        counted({"a": {"x": "many"}}),
        counted({"a": {"x": None, "y": True}}),
        {PHRASE: " , ,"},
        {PHRASE: "x" * 300},
    ],
)
def test_what_no_trainer_writes_says_nothing(metadata: dict[str, str]) -> None:
    """Metadata is anybody's text: a form that is not known is no failure."""
    assert trigger_words(metadata) == ()
