"""Strengths by block, fused: against float64 by hand, resident factors, LDM's own numbers, and diffusers."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from diffusers import UNet2DConditionModel

from sdgrpc.domain import LoraRef
from sdgrpc.domain.bases import SD2, SD15, SDXL
from sdgrpc.domain.blocks import LAYOUTS, Block, BlockWeights, part_of
from sdgrpc.lora.bases.architectures import index
from sdgrpc.lora.bases.ldm import ldm_names
from sdgrpc.lora.bases.placement import place
from sdgrpc.lora.dialects.adapt import read_adapter
from sdgrpc.lora.fusing.cache import FusedSets, OverlaySwitch
from sdgrpc.lora.fusing.changes import weight_change
from sdgrpc.lora.fusing.lora_set import LoraSet
from tests.lora.test_models import diffusers_file, predict
from tests.lora.test_models import unet as unet_model
from tests.support.fused import EVERYWHERE, fused_weights, sets
from tests.support.loras import (
    CROSS,
    LINEAR,
    TEXT_LINEAR,
    every_algorithm,
    kohya,
    kohya_file,
    lora_file,
    ref,
    require_shared,
    shape_of,
    small_components,
    weight_of,
)
from tests.support.resident import Fused, Multiplied

unet = unet_model
ASKED = "unet.down.block_0*0.5,unet.down.block_1*-0.25,unet.mid*0,text_encoder*2"
FACTORS = {"down_blocks.0": 0.5, "down_blocks.1": -0.25, "mid_block": 0.0, "encoder": 2.0}


def weighted(text: str, asked: LoraRef) -> LoraRef:
    weights = BlockWeights.parse(text)
    return replace(asked, block_weights=weights, block_factors=weights.factors("embedded"))


def factor_of(path: str) -> float:
    return next(factor for start, factor in FACTORS.items() if path.startswith(start))


@pytest.mark.parametrize("label", every_algorithm(shape_of(LINEAR)))
def test_every_algorithm_is_fused_by_block(label: str) -> None:
    """W + strength * the block's weight * the change, computed in float64; a weight of 0 leaves W."""
    components = small_components()
    paths = [LINEAR, CROSS, TEXT_LINEAR]
    tensors = {
        f"{kohya(path)}{ending}": tensor
        for number, path in enumerate(paths)
        for ending, tensor in every_algorithm(shape_of(path), number).get(label, {}).items()
    }
    file = lora_file(tensors)
    strength, text = 0.8, 0.5
    with sets(components).acquire([(file, weighted(ASKED, ref(strength, text)))]) as lease:
        weights = fused_weights(lease)
        modules = lease.reports[0].modules
    assert weights.keys() == {LINEAR, TEXT_LINEAR}
    assert modules == {"unet": 1, "text_encoder": 1}
    for path, fused in weights.items():
        source = next(one for one in file.adapter().modules if one.spelling == kohya(path))
        base = weight_of(components, path).double()
        change = weight_change(source, base.flatten(1), tuple(base.shape), torch.float64).view(base.shape)
        used = (text if path == TEXT_LINEAR else strength) * factor_of(path)
        assert (fused - (base + used * change)).abs().max() <= 2e-6 * (1 + change.abs().max()), path
        assert change.abs().max() > 0.01


@pytest.mark.parametrize("text", [ASKED, "1,0.5,0,1,0.25", "OUTD", "NONE"])
def test_resident_factors_give_the_same(text: str) -> None:
    """Multiplied in stacks, alone and in company whose blocks differ, as fused weight by weight."""
    one = (lora_file(kohya_file(*EVERYWHERE, seed=1), "a"), weighted(text, ref(0.8, 0.4)))
    other = (lora_file(kohya_file(*EVERYWHERE, seed=2, rank=3), "b"), ref(0.3))
    fused, multiplied = Fused(), Multiplied()
    for members in ([one], [one, other], [other]):
        expected, found = fused.use(members), multiplied.use(members)
        for name, weight in expected.items():
            assert (found[name] - weight).abs().max() <= 2e-6 * (1 + weight.abs().max()), name


def test_equal_strengths_are_one_set() -> None:
    """However they are written; another weight is another set, and so is a part of the text encoder's."""
    file = lora_file(kohya_file(*EVERYWHERE))
    texts = ["ALL", "1,1,1,1,1,1,1,1,1,1", "unet*1", "OUTD", "1,0,0,1,0", "unet.mid*0", "text_encoder*0.5"]
    ids = [LoraSet.of([(file, weighted(text, ref(0.8)))]).set_id for text in texts]
    plain = LoraSet.of([(file, ref(0.8))]).set_id
    assert ids[0] == ids[1] == ids[2] == plain
    assert ids[3] == ids[4] != plain
    assert len({*ids, plain}) == 4
    cache = sets()
    with cache.acquire([(file, weighted("OUTD", ref(0.8)))]) as lease:
        assert str(lease.reports[0].block_weights) == "OUTD"
    assert str(cache.resident("m")[0].loras[0].block_weights) == "OUTD"
    with cache.acquire([(file, weighted("1,0,0,1,0", ref(0.8)))]) as lease:
        assert lease.cached


def test_prompts_are_encoded_once_for_other_blocks_of_the_unet() -> None:
    """What BASE is tells the text encoders apart, and nothing else."""
    file = lora_file(kohya_file(*EVERYWHERE))
    cache = sets()

    def part(text: str) -> str:
        with cache.acquire([(file, weighted(text, ref(0.8)))]) as lease:
            return lease.prompt_part.text_encoders

    assert part("1,0,0,1,0") == part("1,1,0,0,0") == part("ALL") != ""
    assert part("0.5,0,0,1,0") != part("1,0,0,1,0")
    assert part("0,1,1,1,1") == ""


@pytest.mark.parametrize("base", [SD15, SD2, SDXL])
def test_blocks_have_the_numbers_that_their_modules_have(base: str) -> None:
    """IN04 is what CompVis's code calls `input_blocks.4`: for every module, by the names of LDM files."""
    sides = {"input_blocks": "IN", "middle_block": "M", "output_blocks": "OUT"}
    block_of = {part: block.name for block in LAYOUTS[base].blocks for part in block.parts}
    checked = set()
    for path, ldm in ldm_names(index(base).paths("unet")):
        side, number = re.match(r"(\w+)\.(\d+)", ldm).groups()
        block = block_of.get(part_of("unet", path), "")
        expected = f"{sides[side]}{0 if side == 'middle_block' else int(number):02}" if side in sides else ""
        assert block == expected, path
        checked.add(block)
    assert len(checked - {""}) == len(LAYOUTS[base].blocks) - 1


@pytest.mark.parametrize(
    "weights",
    [
        {"down": 0.5, "mid": 0.25, "up": 0.0},
        {"down": {"block_0": 0.5}, "up": {"block_1": [0.5, 0.75]}},
        {"mid": 0.0},
        {"up": {"block_1": [0.2]}},
    ],
)
def test_diffusers_predicts_the_same_by_its_dictionary(
    unet: UNet2DConditionModel, weights: dict[str, object]
) -> None:
    """`set_adapters` with weights by block, for an additive file of the attentions."""
    from sdgrpc.client.drawing.blocks import block_weights

    tensors = {key: tensor for key, tensor in diffusers_file(unet).items() if ".attentions." in key}
    asked = block_weights({"unet": weights})
    cache, switch = FusedSets({"unet": unet}, base="embedded", capacity_bytes=1 << 24), OverlaySwitch(unet)
    file = lora_file(tensors)
    plain = ref(1.0)
    member = replace(plain, block_weights=asked, block_factors=asked.factors("embedded"))
    found = []
    for one in (plain, member):
        with cache.acquire([(file, one)]) as lease:
            assert lease.reports[0].unmatched_tensors == 0
            switch.use(lease.overlay.tensors.get("unet", {}))
            found.append(predict(unet))
            switch.use({})
    unet.load_lora_adapter(tensors, prefix="unet", adapter_name="oracle")
    try:
        unet.set_adapters(["oracle"], [weights])
        theirs = predict(unet)
    finally:
        unet.unload_lora()
    assert (found[1] - theirs).abs().max() <= 1e-5 * theirs.std()
    assert (found[0] - theirs).abs().max() > 1e-3 * theirs.std()


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("cloneofsimo_lora_disney", LAYOUTS[SD15].short),
        ("diffusers_sd-pokemon-model-lora_pytorch_lora_weights", LAYOUTS[SD15].short[1:]),
        ("lycoris_smart_falcon_8_lokr", tuple(one for one in LAYOUTS[SD15].blocks if one.name != "IN00")),
    ],
)
def test_real_files_have_the_blocks_of_their_lists(name: str, blocks: tuple[Block, ...]) -> None:
    """A plain LoRA has the 17 of the short list, or 16 without BASE; a LyCORIS file has convolutions' too."""
    path = require_shared("loras") / f"{name}.safetensors"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    adapter = read_adapter(path.resolve(), name)
    placed = place(adapter, index(SD15)).placed
    block_of = {part: block.name for block in LAYOUTS[SD15].blocks for part in block.parts}
    found = {block_of.get(part_of(one.target.component, one.target.path), "") for one in placed}
    assert found == {block.name for block in blocks}
