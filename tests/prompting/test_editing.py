r"""What a prompt says in each step, beside the web UI's own table of schedules."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdgrpc.prompting.editing import read_schedule

TEN = 10

# The strings and schedules that the web UI's `prompt_parser` states for ten steps.
TABLE = [
    ("test", [(10, "test")]),
    ("a [b:3]", [(3, "a "), (10, "a b")]),
    ("a [b: 3]", [(3, "a "), (10, "a b")]),
    ("a [[[b]]:2]", [(2, "a "), (10, "a [[b]]")]),
    ("[(a:2):3]", [(3, ""), (10, "(a:2)")]),
    ("a [b : c : 1] d", [(1, "a b  d"), (10, "a  c  d")]),
    ("a[b:[c:d:2]:1]e", [(1, "abe"), (2, "ace"), (10, "ade")]),
    ("a [unbalanced", [(10, "a [unbalanced")]),
    ("a [b:.5] c", [(5, "a  c"), (10, "a b c")]),
    ("((a][:b:c [d:3]", [(3, "((a][:b:c "), (10, "((a][:b:c d")]),
    ("[a|(b:1.1)]", [(step, "(b:1.1)" if step % 2 == 0 else "a") for step in range(1, 11)]),
    ("[fe|]male", [(step, "male" if step % 2 == 0 else "female") for step in range(1, 11)]),
    ("[fe|||]male", [(1, "female"), (4, "male"), (5, "female"), (8, "male"), (9, "female"), (10, "male")]),
    ("a [b:c:0.5] d", [(5, "a b d"), (10, "a c d")]),
    ("[a::3]z", [(3, "az"), (10, "z")]),
    ("([a:b:3]:1.2)", [(3, "(a:1.2)"), (10, "(b:1.2)")]),
    ("[a|b:0.5]", [(step, "b:0.5" if step % 2 == 0 else "a") for step in range(1, 11)]),
    ("[[a|b]:c:2]", [(1, "a"), (2, "b"), (10, "c")]),
    ("[a:b:0]", [(10, "b")]),
    ("[a:b:-1]", [(10, "b")]),
    ("[a:b:20]", [(10, "a")]),
    ("[a:b:1.0]", [(10, "a")]),
    ("[a:b:0.99]", [(9, "a"), (10, "b")]),
    ("[a:b:1e0]", [(1, "a"), (10, "b")]),
    ("a [b [c:d:4]", [(4, "a [b c"), (10, "a [b d")]),
]


@pytest.mark.parametrize(("prompt", "schedule"), TABLE)
def test_the_web_uis_schedules(prompt: str, schedule: list[tuple[int, str]]) -> None:
    """The last step of ten that says a text, and the text."""
    assert read_schedule(prompt).texts(TEN) == schedule


def test_a_second_pass_counts_on() -> None:
    """Whole numbers go on from the first pass's steps, shares of it begin at 1."""
    for prompt, texts in (
        ("a [b:.5] c", [(10, "a b c")]),
        ("a [b:1.5] c", [(5, "a  c"), (10, "a b c")]),
        ("[a:b:4]", [(10, "b")]),
        ("[a:b:14]", [(4, "a"), (10, "b")]),
    ):
        assert read_schedule(prompt).texts(TEN, steps_before=10) == texts


PLAIN = [
    *("", "a", "[word]", "(word:1.2)", "[a:b]", "[a:b:c]", "[a:b:0.5:c]", "a|b:c", "[a:b:0.5", "a]b", "(a"),
    *(r"\[a:b:1\]", r"[a\|b]", r"[a\:b\:0.5]", "time 12:30:45", "[(a|b)]", "[(a:b:1)]", "[a:b:1 2]"),
    *("[a:b:]", "[1]", "[a:b:(1)]"),
]


@pytest.mark.parametrize("prompt", PLAIN)
def test_other_text_is_left_as_it_stands(prompt: str) -> None:
    """Weights, escapes, and what is not whole."""
    schedule = read_schedule(prompt)
    assert not schedule.changes
    assert schedule.texts(3) == [(3, prompt)]


MARKS = (*r"ab[]():|\ 0.5", "[a:b:1]", "[a|b]")


@given(st.lists(st.sampled_from(MARKS), max_size=60), st.integers(1, 9))
def test_nothing_is_refused_or_lost(parts: list[str], steps: int) -> None:
    """Whatever is written, each step says something of it, and the last text holds until the end."""
    prompt = "".join(parts)
    schedule = read_schedule(prompt)
    texts = schedule.texts(steps)
    assert texts[-1][0] == steps
    assert all(left != right for (_, left), (_, right) in pairwise(texts))
    if not schedule.changes:
        assert texts == [(steps, prompt)]


DEEP = [
    "[" * 20_000,
    "[a:" * 5_000 + "b" + ":1]" * 5_000,
    "[a|" * 5_000 + "]" * 5_000,
    "(" * 9_000 + "]" * 9_000,
]


@pytest.mark.parametrize("prompt", DEEP, ids=range(4))
def test_depth_is_no_burden(prompt: str) -> None:
    """Nesting is read and said without recursion."""
    assert read_schedule(prompt).at(1, 4) is not None
