"""The rules that judge single values."""

from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdgrpc.api import rules
from sdgrpc.domain.decimals import shortest
from sdgrpc.v1 import diffusion_pb2 as pb


def complaints(rule: rules.Rule, value: object) -> list[tuple[str, str]]:
    return list(rule(value))


@pytest.mark.parametrize(
    ("rule", "value", "sentence"),
    [
        (rules.number(0.0, 1.0), 1.5, "1.5 is above 1.0"),
        (rules.number(0.0, 1.0), -0.25, "-0.25 is below 0.0"),
        (rules.number(1, 150), 151, "151 is above 150"),
        (rules.number(0, 9, hint="; try 3"), -1, "-1 is below 0; try 3"),
        (rules.number(0.0, 1.0), math.nan, "nan is not a finite number"),
        (rules.number(0.0, 1.0), -math.inf, "-inf is not a finite number"),
        (rules.zero_or(rules.number(1, 5)), -1, "-1 is below 1"),
        (rules.zero_or(rules.number(1, 5)), 6, "6 is above 5"),
        (rules.multiple_of(8), 100, "100 is not a multiple of 8; 96 and 104 are"),
        (rules.multiple_of(24), 100, "100 is not a multiple of 24; 96 and 120 are"),
        (rules.multiple_of(12), 37, "37 is not a multiple of 12; 36 and 48 are"),
        (rules.text(3), "four", "has 4 characters; the most is 3"),
        (rules.text(3, needed=True), " \n", "is required and is empty"),
        (rules.name(9), "a\nb", "has characters that cannot be printed"),
        (rules.one_of(["x", "y"]), "z", "is none of x, y"),
        (rules.matching("[0-9]", "is no digit"), "12", "is no digit"),
        (rules.member(pb.Scheduler.DESCRIPTOR), 99, "99 is not a Scheduler; they go from 0 to 16"),
        (rules.member(pb.PreviewKind.DESCRIPTOR), -1, "-1 is not a PreviewKind; they go from 0 to 3"),
        (rules.refused("is not for you"), b"", "is not for you"),
        (rules.items(rules.anything, at_most=1), [1, 2], "has 2 entries; the most is 1"),
    ],
)
def test_each_rule_has_its_sentence(rule: rules.Rule, value: object, sentence: str) -> None:
    """What is wrong and what would be right stand in the complaint."""
    assert complaints(rule, value) == [("", sentence)]


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        (rules.number(0.0, 1.0), 0.0),
        (rules.number(0.0, 1.0), 0.5),
        (rules.number(0.0, 1.0), 1.0),
        (rules.number(0.0, 4e38), struct.unpack("<f", struct.pack("<f", 3.4028234663852886e38))[0]),
        (rules.number(0.0, 0.8), struct.unpack("<f", struct.pack("<f", 0.8))[0]),
        (rules.zero_or(rules.number(1, 5)), 0),
        (rules.multiple_of(8), 64),
        (rules.text(3, needed=True), "abc"),
        (rules.text(3), ""),
        (rules.name(9), ""),
        (rules.name(9), "grüße-1"),
        (rules.one_of(["x"]), ""),
        (rules.matching("[0-9]+", "is no number"), "12"),
        (rules.member(pb.SigmaSpacing.DESCRIPTOR), 4),
        (rules.items(rules.anything, at_most=2), [1, 2]),
    ],
)
def test_each_rule_lets_the_edge_pass(rule: rules.Rule, value: object) -> None:
    """Limits are inclusive, also where float32 rounds up; 0 and empty stand for defaults."""
    assert complaints(rule, value) == []


def test_paths_are_put_together() -> None:
    """Messages, lists and values each add their part of the path."""
    lora = rules.fields({"strength": rules.number(0.0, 1.0)})
    rule = rules.fields({"loras": rules.items(rules.every(rules.exactly_one("source"), lora), at_most=9)})
    request = pb.GenerateRequest(loras=[pb.Lora(name="x", strength=1), pb.Lora(strength=2)])
    assert complaints(rule, request) == [
        (".loras[1]", "set one of name, sha256, safetensors"),
        (".loras[1].strength", "2.0 is above 1.0"),
    ]


def test_absent_fields_are_judged_only_if_needed() -> None:
    """An unset optional field is a default; a needed message must be there."""
    table = {"image": rules.refused("looked at"), "strength": rules.refused("looked at")}
    empty = pb.TransformRequest()
    assert complaints(rules.fields(table), empty) == []
    assert complaints(rules.fields(table, needed=("image",)), empty) == [
        (".image", "is required and is not set")
    ]


@given(st.floats(width=32))
def test_shortest_is_the_same_float(value: float) -> None:
    """The shortest decimal names the same float32, for every float32."""
    short = shortest(value)
    if math.isnan(value):
        assert math.isnan(short)
    else:
        assert struct.pack("<f", short) == struct.pack("<f", value)


@given(st.integers(0, 10**6))
def test_shortest_is_what_was_written(number: int) -> None:
    """Six decimals survive the way through a float32."""
    written = number / 10**6
    assert shortest(struct.unpack("<f", struct.pack("<f", written))[0]) == written
