"""What prompts say in each step."""

from __future__ import annotations

from sdgrpc.domain import SecondPass, TaskKind
from sdgrpc.engine.prompts.texts import PromptTexts, faults
from tests.support.tasks import task


def said(**changes: object) -> list[tuple[str, str | None]]:
    return [(" + ".join(parts), negative) for parts, negative in PromptTexts.of(task(**changes)).said]


def test_parts_are_edited_by_themselves() -> None:
    """It is parted first; the weights are the same in all steps."""
    changes = {"prompt": "[a:b:0.5] :0.7 AND [c|d]", "negative_prompt": "", "steps": 4}
    assert [prompt for prompt, _ in said(**changes)] == ["a + c", "a + d", "b + c", "b + d"]
    assert PromptTexts.of(task(**changes)).weights == (0.7, 1.0)
    assert PromptTexts.of(task(**changes)).every == ("a", "c", "d", "b")


def test_parts_need_a_negative_prompt_without_guidance() -> None:
    """But where their weights add up to 1."""
    assert said(prompt="a AND b", negative_prompt="x", steps=1, guidance_scale=1.0) == [("a + b", "x")]
    halves = "a:0.5 AND b:0.5"
    assert said(prompt=halves, negative_prompt="x", steps=1, guidance_scale=1.0) == [("a + b", None)]
    assert said(prompt=halves, negative_prompt="x", steps=1, guidance_scale=2.0) == [("a + b", "x")]


def test_plain_prompts_say_one_thing() -> None:
    """And no negative one where guidance is off."""
    assert said(prompt="a", negative_prompt="b", steps=3) == [("a", "b")] * 3
    assert said(prompt="a", negative_prompt="b", steps=3, guidance_scale=1.0) == [("a", None)] * 3


def test_both_prompts_change_by_themselves() -> None:
    """Editing in one, alternation in the other."""
    found = said(prompt="[a:b:0.5]", negative_prompt="[x|y]", steps=4)
    assert found == [("a", "x"), ("a", "y"), ("b", "x"), ("b", "y")]


def test_steps_that_a_strength_leaves_out_are_counted() -> None:
    """Shares are shares of the schedule, as everywhere."""
    found = said(kind=TaskKind.TRANSFORM, prompt="[a:b:0.75]", steps=8, strength=0.5, guidance_scale=1.0)
    assert [prompt for prompt, _ in found] == ["a", "a", "b", "b"]


def test_a_second_pass_counts_on() -> None:
    """Its shares are those from 1 to 2, and whole numbers those after the first pass's steps."""
    second = SecondPass(128, 128, steps=4, strength=0.5)
    for prompt, texts in (("[a:b:0.5]", "aabbbb"), ("[a:b:1.75]", "aaaaab"), ("[a:b:7]", "aaaaab")):
        found = said(prompt=prompt, steps=4, second_pass=second, guidance_scale=1.0)
        assert "".join(each for each, _ in found) == texts


def test_what_a_range_of_steps_says() -> None:
    """Each once, in order; where no step runs what is said at the end."""
    texts = PromptTexts.of(task(prompt="[a|b|c]", negative_prompt="", steps=6, guidance_scale=1.0))
    assert [prompt for prompt, _ in texts.within(1, 6)] == [("b",), ("c",), ("a",)]
    assert [prompt for prompt, _ in texts.within(4, None)] == [("b",), ("c",)]
    none = PromptTexts.of(task(kind=TaskKind.TRANSFORM, prompt="[a:b:2]", steps=4, strength=0.0))
    assert none.said == ()
    assert [none.at(0)[0], none.within(0, None)[0][0]] == [("b",), ("b",)]
    assert none.every == ("b", "blue")


def test_too_many_texts_are_a_fault_of_their_prompt() -> None:
    """Of either, with the bound; where guidance is off nothing is asked about the negative one."""
    many = "[" + "|".join(map(str, range(65))) + "]"
    for changes, fields in (
        ({"prompt": many, "steps": 65}, ["prompt"]),
        ({"prompt": many, "steps": 64}, []),
        ({"negative_prompt": many, "steps": 65}, ["negative_prompt"]),
        ({"negative_prompt": many, "steps": 65, "guidance_scale": 1.0}, []),
        ({"prompt": many, "negative_prompt": many, "steps": 80}, ["prompt", "negative_prompt"]),
        ({"prompt": many, "steps": 40, "second_pass": SecondPass(128, 128, steps=40)}, []),
    ):
        found = [*faults(task(**changes))]
        assert [fault.field for fault in found] == fields
        assert all(fault.description.startswith("says 65 different texts") for fault in found)


def test_the_parts_texts_count_together() -> None:
    """And so do the ways in which they stand beside each other: each is kept."""

    def alternating(letter: str, count: int) -> str:
        return "[" + "|".join(f"{letter}{index}" for index in range(count)) + "]"

    for counts, steps, said in (
        ((32, 32), 64, []),
        ((33, 32), 64, ["says 65 different texts in its steps; the most is 64"]),
        ((8, 9), 64, []),
        ((8, 9), 72, ["joins its parts in 72 different ways in its steps; the most is 64"]),
    ):
        prompt = " AND ".join(map(alternating, "ab", counts))
        found = [*faults(task(prompt=prompt, negative_prompt="", steps=steps))]
        assert [(fault.field, fault.description) for fault in found] == [("prompt", each) for each in said]
