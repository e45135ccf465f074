"""Strengths by block: the extension's lists and presets, diffusers' names, and their text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdgrpc.domain.bases import OWN, SD2, SD15, SDXL
from sdgrpc.domain.blocks import LAYOUTS, PRESETS, BlockWeights, counts, names, part_of

# As the extension has them: BLOCKID17, BLOCKID26, BLOCKID12 and BLOCKID20.
SHORT_SD = "BASE IN01 IN02 IN04 IN05 IN07 IN08 M00 " + " ".join(f"OUT{n:02}" for n in range(3, 12))
FULL_SD = " ".join(
    ["BASE", *(f"IN{n:02}" for n in range(12)), "M00", *(f"OUT{n:02}" for n in range(12))],
)
SHORT_XL = "BASE IN04 IN05 IN07 IN08 M00 OUT00 OUT01 OUT02 OUT03 OUT04 OUT05"
FULL_XL = " ".join(["BASE", *(f"IN{n:02}" for n in range(9)), "M00", *(f"OUT{n:02}" for n in range(9))])

# Its presets, as numbers for the 17 blocks of SD1; for SDXL as users rewrote them for its 12.
OF_SD = {
    "INS": "1,1,1,1,0,0,0,0,0,0,0,0,0,0,0,0,0",
    "IND": "1,0,0,0,1,1,1,0,0,0,0,0,0,0,0,0,0",
    "INALL": "1,1,1,1,1,1,1,0,0,0,0,0,0,0,0,0,0",
    "MIDD": "1,0,0,0,1,1,1,1,1,1,1,1,0,0,0,0,0",
    "OUTD": "1,0,0,0,0,0,0,0,1,1,1,1,0,0,0,0,0",
    "OUTS": "1,0,0,0,0,0,0,0,0,0,0,0,1,1,1,1,1",
    "OUTALL": "1,0,0,0,0,0,0,0,1,1,1,1,1,1,1,1,1",
}
OF_XL = {
    "INS": "1,1,1,0,0,0,0,0,0,0,0,0",
    "IND": "1,0,0,1,1,0,0,0,0,0,0,0",
    "INALL": "1,1,1,1,1,0,0,0,0,0,0,0",
    "MIDD": "1,0,0,1,1,1,1,1,1,0,0,0",
    "OUTD": "1,0,0,0,0,0,1,1,1,0,0,0",
    "OUTS": "1,0,0,0,0,0,0,0,0,1,1,1",
    "OUTALL": "1,0,0,0,0,0,1,1,1,1,1,1",
}


@pytest.mark.parametrize(
    ("base", "short", "full"),
    [(SD15, SHORT_SD, FULL_SD), (SD2, SHORT_SD, FULL_SD), (SDXL, SHORT_XL, FULL_XL)],
)
def test_the_blocks_are_those_of_the_extension(base: str, short: str, full: str) -> None:
    """In its order, of both lengths of a list."""
    layout = LAYOUTS[base]
    assert " ".join(block.name for block in layout.short) == short
    assert " ".join(block.name for block in layout.blocks) == full
    assert counts(base) == (len(short.split()), len(full.split()))


@pytest.mark.parametrize(("base", "presets"), [(SD15, OF_SD), (SD2, OF_SD), (SDXL, OF_XL)])
def test_presets_are_those_of_the_extension(base: str, presets: dict[str, str]) -> None:
    """Each means what its list means, for blocks without attention too."""
    assert {*presets, "ALL", "ALL0.5", "NONE"} == set(PRESETS)
    for preset, numbers in presets.items():
        assert BlockWeights(preset=preset).factors(base) == BlockWeights.parse(numbers).factors(base), preset


@pytest.mark.parametrize("base", LAYOUTS)
def test_presets_of_one_number_are_for_everything(base: str) -> None:
    """ALL changes nothing, NONE leaves nothing, wherever a module is."""
    parts = LAYOUTS[base].parts
    assert BlockWeights(preset="ALL").factors(base) == ()
    assert dict(BlockWeights(preset="NONE").factors(base)) == dict.fromkeys(parts, 0.0)
    assert dict(BlockWeights(preset="ALL0.5").factors(base)) == dict.fromkeys(parts, 0.5)


@pytest.mark.parametrize("base", LAYOUTS)
def test_a_list_is_for_each_block_by_its_number(base: str) -> None:
    """A full list leaves no block as it was; a short one is 0 where blocks do not attend."""
    layout, (short, full) = LAYOUTS[base], counts(base)
    numbered = dict(BlockWeights(tuple(float(2 + n) for n in range(full))).factors(base))
    assert numbered == {part: float(2 + n) for n, block in enumerate(layout.blocks) for part in block.parts}
    some = dict(BlockWeights((2.0,) * short).factors(base))
    for block in layout.blocks:
        assert {some[part] for part in block.parts} == {2.0 if block.attends else 0.0}
    assert "unet.rest" not in some


@pytest.mark.parametrize(
    ("asked", "part", "factor"),
    [
        ("unet*0.5", "unet.rest", 0.5),
        ("unet*0.5", "text_encoder", 1.0),
        ("unet*0.5,unet.down*2", "unet.down.block_0.1", 2.0),
        ("unet.down*2,unet.down.block_1*3", "unet.down.block_1.0", 3.0),
        ("unet.down.block_1*3,unet.down.block_1.0*4", "unet.down.block_1.0", 4.0),
        ("unet.down.block_1*3,unet.down.block_1.0*4", "unet.down.block_1.1", 3.0),
        ("unet.down.block_1*3,unet.down.block_1.0*4", "unet.down.block_1.sampler", 4.0),
        ("unet.down.block_1.1*4", "unet.down.block_1.sampler", 1.0),
        ("text_encoder*0", "text_encoder", 0.0),
        ("unet.mid*0", "unet.mid", 0.0),
    ],
)
def test_the_most_precise_name_counts(asked: str, part: str, factor: float) -> None:
    """Samplers go with their block's first layer, as in diffusers."""
    assert dict(BlockWeights.parse(asked).factors(SD15)).get(part, 1.0) == factor


@pytest.mark.parametrize(
    ("base", "asked", "sentence"),
    [
        (SD15, "1,0", "has 2 numbers; this model takes 17 (BASE, IN01"),
        (SDXL, ",".join("1" * 17), "has 17 numbers; this model takes 12 (BASE, IN04"),
        (OWN, ",".join("1" * 12), "has 12 numbers; this model takes 5 (BASE, IN03, M00, OUT00, OUT01) or 10"),
        (SD15, "text_encoder_2*1", "'text_encoder_2' is no block of this model"),
        (SDXL, "unet.down.block_3*1", "'unet.down.block_3' is no block of this model"),
        (SD15, "unet.down.block_1.sampler*1", "is no block of this model"),
        (SD15, "unet.rest*1", "is no block of this model"),
        (SD15, "down*1", "'down' is no block of this model"),
    ],
)
def test_what_does_not_fit_a_model(base: str, asked: str, sentence: str) -> None:
    """Says which counts do, or which name does not."""
    with pytest.raises(ValueError, match=r"number|block") as caught:
        BlockWeights.parse(asked).factors(base)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "nothing", "1,,0", "1,R,0", "1,nan", "inf", "1e999,1", "unet.mid*x", "*"]
)
def test_what_is_not_read(text: str) -> None:
    """Nor are the extension's random numbers."""
    with pytest.raises(ValueError, match=r"number|preset|large"):
        BlockWeights.parse(text)


NUMBERS = st.floats(-4, 4, width=32)


@given(
    st.builds(BlockWeights, values=st.lists(NUMBERS, min_size=1, max_size=26).map(tuple))
    | st.builds(BlockWeights, preset=st.sampled_from(PRESETS))
    | st.builds(
        BlockWeights,
        blocks=st.dictionaries(st.sampled_from(names(SDXL)), NUMBERS, min_size=1).map(
            lambda found: tuple(sorted(found.items()))
        ),
    )
)
def test_a_text_is_read_as_it_is_written(weights: BlockWeights) -> None:
    """Every form comes back."""
    assert BlockWeights.parse(str(weights)) == weights
    assert not BlockWeights()
    assert str(BlockWeights()) == ""


def test_modules_are_in_their_blocks() -> None:
    """By component and path; what is in none is the rest."""
    assert part_of("text_encoder_2", "text_model.encoder.layers.0.mlp.fc1") == "text_encoder_2"
    assert part_of("unet", "down_blocks.1.resnets.0.conv1") == "unet.down.block_1.0"
    assert part_of("unet", "up_blocks.0.upsamplers.0.conv") == "unet.up.block_0.sampler"
    assert part_of("unet", "mid_block.resnets.1.conv1") == "unet.mid"
    assert [part_of("unet", path) for path in ("conv_in", "conv_out")] == ["unet.conv_in", "unet.rest"]
    assert part_of("unet", "time_embedding.linear_1") == "unet.rest"
