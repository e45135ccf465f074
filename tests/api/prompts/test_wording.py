"""Tags and syntax of a request's prompts, judged like its other fields."""

from __future__ import annotations

import pytest

from sdgrpc.api.validate import read
from sdgrpc.domain import LoraRef, Task
from sdgrpc.errors import InvalidRequest
from sdgrpc.v1 import diffusion_pb2 as pb
from tests.support.api import generate, inpaint, make_settings, transform
from tests.support.engine import make_model

REQUESTS = [generate, transform, inpaint]


def task_of(request, **settings) -> Task:
    return read(request, make_settings(**settings), [make_model()])


def faults_of(request, **settings) -> dict[str, str]:
    with pytest.raises(InvalidRequest) as caught:
        task_of(request, **settings)
    return {each.field: each.description for each in caught.value.violations}


@pytest.mark.parametrize("request_of", REQUESTS)
def test_a_tag_is_an_entry_of_loras(request_of) -> None:
    """In every request: the task is that of the same request by `loras`, to the last digit."""
    tagged = task_of(request_of(prompt="<lora:postcard:0.8> a star <lora:inks:0.7:0.1>", request_id="x"))
    loras = [
        pb.Lora(name="postcard", strength=0.8),
        pb.Lora(name="inks", strength=0.7, text_encoder_strength=0.1),
    ]
    named = task_of(request_of(prompt="a star", loras=loras, request_id="x"))
    assert tagged.loras == named.loras == (LoraRef(0.8, 0.8, "postcard"), LoraRef(0.7, 0.1, "inks"))
    assert tagged.prompt == named.prompt == "a star"


def test_a_tag_has_strengths_by_block() -> None:
    """As the same entry of `loras`, for the model's own blocks."""
    tagged = task_of(generate(prompt="<lora:postcard:0.8:lbw=OUTD> a", request_id="x"))
    lora = pb.Lora(name="postcard", strength=0.8, block_weights=pb.BlockWeights(preset="OUTD"))
    named = task_of(generate(prompt="a", loras=[lora], request_id="x"))
    assert tagged.loras == named.loras
    assert dict(tagged.loras[0].block_factors)["unet.down.block_0.0"] == 0.0


def test_a_tag_says_which_steps_have_it() -> None:
    """As the same entry of `loras`."""
    tagged = task_of(generate(prompt="<lora:postcard:0.8:start=0.2:end=0.7> a", request_id="x"))
    lora = pb.Lora(name="postcard", strength=0.8, start=0.2, end=0.7)
    assert tagged.loras == task_of(generate(prompt="a", loras=[lora], request_id="x")).loras
    assert (tagged.loras[0].start, tagged.loras[0].end) == (0.2, 0.7)


def test_a_prompt_without_tags_stays_as_it_is() -> None:
    """White space at its ends too."""
    assert task_of(generate(prompt=" a star ")).prompt == " a star "
    assert task_of(generate(prompt="a", loras=[pb.Lora(name="x")])).loras == (LoraRef(1.0, 1.0, "x"),)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompt": "<lora:x:1.5> a"}, "<lora:x>, whose strength 1.5 is above 1.0"),
        ({"prompt": "<lora:x:1.5> a"}, "lora_strength_max"),
        ({"prompt": "<lora:x:-0.5> a"}, "lora_strength_min"),
        ({"prompt": "<lora:x:1.5:0.5> a"}, "<lora:x>, whose strength 1.5 is above 1.0"),
        ({"prompt": "<lora:x:1e99> a"}, "is not a finite number"),
        ({"prompt": "<lora:x:0.5> a", "loras": [pb.Lora(name="y")]}, "use one of both"),
        ({"prompt": "<lora:x:0.1>" * 17}, "names 17 LoRAs; the most is 16"),
        ({"prompt": "<lora:" + "x" * 257 + ":1> a"}, "name has 257 characters; the most is 256"),
        ({"prompt": "<lora:x\x07:1> a"}, "cannot be printed"),
        ({"prompt": "<lora: :1> a"}, "name is required and is empty"),
        ({"prompt": "<lora:x:lbw=1,0> a"}, "<lora:x>, whose block weights.values has 2 numbers; this model"),
        ({"prompt": "<lora:x:lbw=DEEP> a"}, "of which lbw is not read: 'DEEP' is none of the presets ALL"),
        ({"prompt": "<lora:x:0.8:lbw=unet.mid*2> a"}, "2.0 times the strength 0.8: 1.6 is above 1.0"),
        ({"prompt": "<lyco:x:1> a"}, "<lyco:…>"),
        ({"prompt": "<lora:x:1> " + " AND ".join("abcdefghi")}, "joins 9 parts by AND; the most is 8"),
        ({"prompt": "a AND a clock at 12:30 <lora:x:1>"}, "weighs a part of AND with 30; the most is 10"),
    ],
)
def test_violations_name_the_prompt(changes: dict, words: str) -> None:
    """Alone, with what to do."""
    found = faults_of(generate(**changes))
    assert list(found) == ["prompt"]
    assert words in found["prompt"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<lora:x:0.5> b", "read in `prompt` alone"),
        ("<lyco:x> b", "<lyco:…>"),
    ],
)
def test_violations_of_a_negative_prompt(text: str, words: str) -> None:
    """The web UI would encode a tag there as words; here it is refused by name."""
    found = faults_of(generate(negative_prompt=text))
    assert list(found) == ["negative_prompt"]
    assert words in found["negative_prompt"]


def test_and_is_a_word_in_a_negative_prompt() -> None:
    """And so it is inside a LoRA's name, which is taken out first."""
    many = " AND ".join("abcdefghi")
    assert task_of(generate(negative_prompt=many)).negative_prompt == many
    assert task_of(generate(prompt="a AND b :0.5 <lora:x:1>")).prompt == "a AND b :0.5"
    assert task_of(generate(prompt="<lora:salt AND [p|q]:1> a")).loras[0].name == "salt AND [p|q]"


def test_both_prompts_are_judged_with_the_rest() -> None:
    """Every violation at once, one for each field."""
    found = faults_of(generate(prompt="a AND b:20 AND <lyco:c:1>", negative_prompt="<lora:a:1>", width=1))
    assert sorted(found) == ["negative_prompt", "prompt", "width"]
    assert all(word in found["prompt"] for word in ("AND", "<lyco:…>"))


def test_a_prompt_that_is_too_long_is_not_searched() -> None:
    """Its length alone is wrong with it."""
    found = faults_of(generate(prompt="<lora:x:9>" * 1000, negative_prompt="[a|b]" * 1000))
    assert all("the most is 4000" in sentence for sentence in found.values())


def test_the_operators_range_holds_for_tags() -> None:
    """Where it is widened, they may be as strong."""
    assert task_of(generate(prompt="<lora:x:-1.5> a"), lora_strength_min=-2.0).loras[0].strength == -1.5


def test_sentences_hold_none_of_the_prompt() -> None:
    """But for LoRAs' names."""
    found = faults_of(generate(prompt="s3cret <lora:x:s3cret> [s3cret|b]:99 AND <lora:y:1:s3cret=2>"))
    assert "s3cret" not in found["prompt"].replace("'s3cret'", "")
