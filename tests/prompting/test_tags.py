r"""Tags in prompts: A1111's forms, what is left, and what is refused."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdgrpc.prompting.tags import LoraTag, decimal, take_tags


@pytest.mark.parametrize(
    ("written", "tag"),
    [
        ("<lora:postcard>", LoraTag("postcard", 1.0, 1.0)),
        ("<lora:postcard:0.8>", LoraTag("postcard", 0.8, 0.8)),
        ("<lora:postcard:0.8:0.4>", LoraTag("postcard", 0.8, 0.4)),
        ("<lora:postcard:te=0.4:unet=0.8>", LoraTag("postcard", 0.8, 0.4)),
        ("<lora:postcard:unet=0.8:te=0.4>", LoraTag("postcard", 0.8, 0.4)),
        ("<lora:postcard:unet=0.8>", LoraTag("postcard", 0.8, 1.0)),
        ("<lora:postcard:te=0.4>", LoraTag("postcard", 0.4, 0.4)),
        ("<lora:postcard:0.4:unet=0.8>", LoraTag("postcard", 0.8, 0.4)),
        ("<lora:postcard:-1>", LoraTag("postcard", -1.0, -1.0)),
        ("<lora:postcard:.5>", LoraTag("postcard", 0.5, 0.5)),
        ("<lora:postcard:1.>", LoraTag("postcard", 1.0, 1.0)),
        ("<lora:postcard:+1e-1>", LoraTag("postcard", 0.1, 0.1)),
        ("<lora:postcard: 0.8 >", LoraTag("postcard", 0.8, 0.8)),
        ("<lora:my style v1.5-fp16:0.8>", LoraTag("my style v1.5-fp16", 0.8, 0.8)),
        ("<lora:folder/ink.v2.safetensors:0.8>", LoraTag("folder/ink.v2.safetensors", 0.8, 0.8)),
        ("<lora:汉字:0.8>", LoraTag("汉字", 0.8, 0.8)),
        (r"<lora:a\:b:0.8>", LoraTag("a:b", 0.8, 0.8)),
        (r"<lora:a\>b:0.8>", LoraTag("a>b", 0.8, 0.8)),
        (r"<lora:a\\:0.8>", LoraTag("a\\", 0.8, 0.8)),
        (r"<lora:C\dir:0.8>", LoraTag("C\\dir", 0.8, 0.8)),
        ("<lora:a=b:0.8>", LoraTag("a=b", 0.8, 0.8)),
        ("<lora:a,b (c) [d]:0.8>", LoraTag("a,b (c) [d]", 0.8, 0.8)),
    ],
)
def test_forms(written: str, tag: LoraTag) -> None:
    """The first number is the text encoders', as the web UI has it; names are exact."""
    found = take_tags(f"{written} a star")
    assert found.loras == (tag,)
    assert (found.text, found.faults) == ("a star", ())


@pytest.mark.parametrize(
    ("prompt", "left"),
    [
        ("a star", "a star"),
        (" a star ", " a star "),
        ("<lora:x:1> a star", "a star"),
        ("a star <lora:x:1>", "a star"),
        ("a <lora:x:1> star", "a  star"),
        ("a, <lora:x:1>, <lora:y:0.5>, star", "a, , , star"),
        ("<lora:x:1>", ""),
        ("(a <lora:x:1> star:1.2)", "(a  star:1.2)"),
        ("a\n<lora:x:1>\nstar", "a\n\nstar"),
        ("<s1> a <3 b", "<s1> a <3 b"),
        ("a < b: c > d", "a < b: c > d"),
        (r"\<lora:x:1> a", r"\<lora:x:1> a"),
        (r"\\<lora:x:1> a", "\\\\ a"),
    ],
)
def test_what_is_left(prompt: str, left: str) -> None:
    """What the web UI's substitution leaves, but for white space at the ends; escapes stay."""
    assert take_tags(prompt).text == left
    assert take_tags(prompt).faults == ()
    if "\\" not in prompt:
        assert re.sub(r"<(\w+):([^>]+)>", "", prompt).strip() == left.strip()


@pytest.mark.parametrize("text", ["OUTD", "1,0,0.5", "unet.down*0.5,unet.mid*0"])
def test_strengths_by_block_stay_as_they_are(text: str) -> None:
    """They are read where the model is known; a tag with them is written as it is read."""
    (tag,) = take_tags(f"a <lora:x:0.8:lbw={text}> b", web_ui=True).loras
    assert tag == LoraTag("x", 0.8, 0.8, text)
    assert take_tags(str(tag)).loras == (tag,)
    (other,) = take_tags(f"<lora:x:te=0.4:unet=0.8:lbw={text}>").loras
    assert take_tags(str(other)).loras == (other,)


@pytest.mark.parametrize(
    ("body", "tag"),
    [
        ("civitai:2421@43533", LoraTag("civitai:2421@43533")),
        ("urn:air:sd1:lora:civitai:2421@43533:0.8", LoraTag("urn:air:sd1:lora:civitai:2421@43533", 0.8, 0.8)),
        ("civitai:1@2+3:0.8:0.4:lbw=OUTD", LoraTag("civitai:1@2+3", 0.8, 0.4, "OUTD")),
        ("civitai:1:0.5", LoraTag("civitai:1", 0.5, 0.5)),
        (r"civitai\:1@2:0.5", LoraTag("civitai:1@2", 0.5, 0.5)),
    ],
)
def test_an_id_of_civitais_is_a_name(body: str, tag: LoraTag) -> None:
    """Its colons need no backslash, and may have one."""
    assert take_tags(f"a <lora:{body}> b").loras == (tag,)
    assert take_tags(str(tag)).loras == (tag,)


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("start=0.2", 0.2, 1.0),
        ("end=0.8", 0.0, 0.8),
        ("end=0.75:start=0.25", 0.25, 0.75),
        ("lbw=OUTD:end=.5", 0, 0.5),
    ],
)
def test_which_steps_have_it(text: str, start: float, end: float) -> None:
    """As shares, in any order; a tag with them is written as it is read."""
    (tag,) = take_tags(f"a <lora:x:0.8:{text}> b").loras
    assert (tag.strength, tag.start, tag.end) == (0.8, start, end)
    assert take_tags(str(tag)).loras == (tag,)
    assert str(LoraTag("x", 0.8, 0.8, "", 0.0, 1.0)) == "<lora:x:0.8>"
    (fault,) = take_tags("<lora:x:0.8:start=half>").faults
    assert "start is no number" in fault


def test_several_tags_keep_their_order() -> None:
    """Also of one LoRA twice, which `loras` can name twice, too."""
    found = take_tags("<lora:b:0.5><lora:a:0.25> x <lora:b:1>")
    assert [(tag.name, tag.strength) for tag in found.loras] == [("b", 0.5), ("a", 0.25), ("b", 1.0)]


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("<lyco:x:1> a", ["<lyco:…>", "write <lora:name:strength>"]),
        ("<hypernet:x:1> a", ["<hypernet:…>", "hypernetworks"]),
        ("<embed:x> a", ["<embed:…>", r"\<"]),
        ("<LORA:x:1> a", ["<LORA:…>", "only <lora:name:strength> is"]),
        ("<lora:x:much> a", ["<lora:x>", "te is no number", r"\:"]),
        ("<lora:x:0.5:much> a", ["<lora:x>", "te is no number"]),
        ("<lora:x:te=> a", ["te is no number"]),
        ("<lora:x:nan> a", ["te is no number"]),
        ("<lora:x:1_0> a", ["te is no number"]),
        ("<lora:x:\u0660.\u0665> a", ["te is no number"]),
        ("<lora:a:b:0.8> a", ["<lora:a>", "unet is no number"]),
        ("<lora:x:1:1:8> a", ["<lora:x>", "dyn"]),
        ("<lora:x:1:dyn=8> a", ["'dyn' is not applied"]),
        ("<lora:x:1:lbw=> a", ["lbw is empty"]),
        ("<lora:x:1:lbwe=MIDD> a", ["'lbwe' is not applied"]),
        ("<lora:x:1:step=5-9:stop=9> a", ["'step' is not applied", "'stop' is not applied"]),
        ("<lora::0.8> a", ["<lora: without a name"]),
        ("<lora:> a", ["<lora: without a name or without the >"]),
        ("<lora:x:0.8 a", ["<lora: without a name or without the >"]),
        ("<lyco: a", ["<lyco: without a name or without the >"]),
        ("<lora:a\x07b:1:1:1> a", ["<lora:a?b>"]),
    ],
)
def test_what_is_refused(prompt: str, words: list[str]) -> None:
    """By the tag's name, with what to do: nothing is lost, or encoded as words."""
    found = take_tags(prompt)
    said = "; ".join(found.faults)
    assert all(word in said for word in words), said
    assert found.loras == ()


def test_the_web_ui_has_two_numbers_the_other_way_round() -> None:
    """Its pictures are read as it meant them; one number and named ones mean the same in both."""
    assert take_tags("<lora:x:0.4:0.8>", web_ui=True).loras == (LoraTag("x", 0.8, 0.4),)
    assert take_tags("<lora:x:0.4:0.8>").loras == (LoraTag("x", 0.4, 0.8),)
    for tag in ("<lora:x:0.4>", "<lora:x:te=0.4:unet=0.8>", "<lora:x:0.4:unet=0.8>"):
        assert take_tags(tag, web_ui=True) == take_tags(tag)


def test_sentences_are_short() -> None:
    """A name as long as a prompt is cut."""
    (fault,) = take_tags(f"<lora:{'x' * 3000}:much>").faults
    assert len(fault) < 200


@pytest.mark.timeout(20)
def test_hostile_prompts_end() -> None:
    """No prompt of the largest size sends the search back and forth."""
    for piece in ("<lora:", "<a:", "\\", "<lora:\\\\", "<lora:a:", ":<", "<lora:\\:"):
        prompt = (piece * 4000)[:4000]
        for text in (prompt, f"{prompt}>", f"{prompt}:x>"):
            assert len(take_tags(text).text) <= len(text)


@given(
    st.text(min_size=1).filter(str.strip),
    st.floats(-5, 5, width=32),
    st.floats(-5, 5, width=32),
    st.booleans(),
)
def test_tags_are_read_as_they_are_written(name: str, strength: float, other: float, same: bool) -> None:
    """Every name and every pair of numbers comes back from its own tag."""
    tag = LoraTag(name, strength, strength if same else other)
    found = take_tags(f"a {tag} b")
    assert found.loras == (tag,)
    assert found.text == "a  b"


@given(st.text(alphabet="<>lora:\\=.5 xAND[]|", max_size=40))
def test_nothing_raises(prompt: str) -> None:
    """Whatever is written, there is a text, and no tag of ours is left in it."""
    found = take_tags(prompt)
    assert found.faults or not take_tags(found.text).loras or "<lora:" in found.text


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.0, "1"), (0.8, "0.8"), (0.0, "0"), (-1.5, "-1.5"), (1e-7, "1e-07"), (0.12345679, "0.12345679")],
)
def test_decimals_are_the_shortest(value: float, text: str) -> None:
    """No digit is lost, and none is added."""
    assert decimal(value) == text
    assert float(text) == value
