"""Which base a file is for."""

from __future__ import annotations

import json

import pytest
import torch

from sdgrpc.domain.bases import BASES
from sdgrpc.errors import LoraIncompatible, LoraMalformed
from sdgrpc.lora.bases import architectures
from sdgrpc.lora.bases.detect import base_in_metadata, base_of, no_base, place_or_refuse
from sdgrpc.lora.dialects.adapt import adapt
from sdgrpc.lora.dialects.adapter import Adapter
from sdgrpc.lora.files.reading import TensorFile
from tests.support.loras import adapter_of, require_shared

ATTN1 = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
ATTN2 = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
PROJ = "lora_unet_down_blocks_1_attentions_0_proj_in"


def adapter(*modules: tuple[str, int, int], metadata: dict[str, str] | None = None) -> Adapter:
    """A file of rank 1 for modules (spelling, out, in)."""
    tensors = {}
    for spelling, rows, columns in modules:
        tensors[f"{spelling}.lora_up.weight"] = torch.ones(rows, 1)
        tensors[f"{spelling}.lora_down.weight"] = torch.ones(1, columns)
    return adapter_of(tensors, metadata)


def of_real_shapes(name: str) -> Adapter:
    """A real file's keys and shapes, all ones, which take no memory."""
    keys = json.loads((require_shared("keys") / f"{name}.json").read_text())
    tensors = {key: torch.ones(()).expand(shape) for key, shape in keys.items()}
    return adapt(TensorFile(name, "", tensors, {}))


def base(found: Adapter) -> str:
    detected = base_of(found)
    return detected[0] if detected else "unknown"


@pytest.mark.parametrize(
    ("width", "expected"), [(768, "sd15"), (1024, "sd2"), (2048, "sdxl"), (4096, "unknown")]
)
def test_cross_attention_tells_the_base(width: int, expected: str) -> None:
    """The width that keys and values read from decides."""
    assert base(adapter((ATTN2, 640, width))) == expected


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({}, "sd15"),
        ({"ss_v2": "True"}, "sd2"),
        ({"modelspec.architecture": "stable-diffusion-v2-768-v/lora"}, "sd2"),
        ({"modelspec.architecture": "stable-diffusion-v1/lora"}, "sd15"),
        ({"ss_base_model_version": "sdxl_base_v1-0"}, "sd15"),
    ],
)
def test_metadata_only_breaks_ties(metadata: dict[str, str], expected: str) -> None:
    """Self-attention is the same in SD1 and SD2: there metadata decides, but only between those two."""
    assert base(adapter((ATTN1, 320, 320), metadata=metadata)) == expected


def test_metadata_does_not_overrule_shapes() -> None:
    """A file that says SD1.5 and has SDXL's width is for SDXL."""
    assert base(adapter((ATTN2, 640, 2048), metadata={"ss_base_model_version": "sd_1.5"})) == "sdxl"


def test_the_prefix_breaks_ties_of_text_encoders() -> None:
    """CLIP-L alone is SD1's or SDXL's: `lora_te1_` says SDXL, `lora_te_` SD1."""
    fc1 = "text_model_encoder_layers_0_mlp_fc1"
    assert base(adapter((f"lora_te_{fc1}", 3072, 768))) == "sd15"
    assert base(adapter((f"lora_te1_{fc1}", 3072, 768))) == "sdxl"


def test_base_in_metadata_knows_the_trainers_words() -> None:
    """What kohya and modelspec write."""
    assert base_in_metadata({"ss_base_model_version": "sdxl_base_v1-0"}) == "sdxl"
    assert base_in_metadata({"ss_base_model_version": "sd_v1"}) == "sd15"
    assert base_in_metadata({"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}) == "sdxl"
    assert base_in_metadata({}) == ""


def test_another_base_is_named_with_its_width() -> None:
    """The sentence says what the file is for, what is loaded, and what tells them apart."""
    with pytest.raises(LoraIncompatible) as caught:
        place_or_refuse(adapter((ATTN2, 640, 2048)), architectures.index("sd15"), "sd15")
    assert caught.value.message == (
        "LoRA 'a': is for SDXL (cross-attention width 2048); the loaded model is SD1.5 (768)"
    )


def test_a_tie_that_metadata_decides_is_refused_too() -> None:
    """A self-attention file for SD2 fits SD1.5 by shape; its metadata says that it is not for it."""
    file = adapter((ATTN1, 320, 320), metadata={"ss_v2": "True"})
    with pytest.raises(LoraIncompatible, match="is for SD2 "):
        place_or_refuse(file, architectures.index("sd15"), "sd15")
    assert place_or_refuse(file, architectures.index("sd2"), "sd2").complete


def test_a_text_encoder_of_sd1_fits_sdxl() -> None:
    """Both have CLIP-L, so the file is applied to whichever is loaded."""
    file = adapter(("lora_te_text_model_encoder_layers_0_mlp_fc1", 3072, 768))
    for loaded in ("sd15", "sdxl"):
        assert place_or_refuse(file, architectures.index(loaded), loaded).complete


def test_a_few_homeless_tensors_are_kept_for_the_report() -> None:
    """A file for the right base with an unknown module is applied, and says so."""
    known = [
        (f"lora_unet_down_blocks_{b}_attentions_{a}_proj_in", 320 << b, 320 << b)
        for b in (0, 1)
        for a in (0, 1)
    ]
    placement = place_or_refuse(
        adapter(*known, ("lora_unet_extra", 5, 5)), architectures.index("sd15"), "sd15"
    )
    assert len(placement.placed) == 4
    assert [module.spelling for module in placement.unplaced] == ["lora_unet_extra"]


def test_what_only_half_fits_is_refused() -> None:
    """The share that fits is said, and one key that does not."""
    file = adapter((PROJ, 640, 640), ("lora_unet_extra", 5, 5))
    with pytest.raises(
        LoraIncompatible, match=r"only in 1 of 2 modules; 'lora_unet_extra\.lora_down\.weight'"
    ):
        place_or_refuse(file, architectures.index("sd15"), "sd15")


def test_a_wrong_shape_in_the_right_base_is_a_fault_of_the_file() -> None:
    """Module, shapes and key are named."""
    known = [(f"lora_unet_up_blocks_3_attentions_{a}_proj_in", 320, 320) for a in range(3)]
    file = adapter(*known, (ATTN2, 640, 700))
    with pytest.raises(LoraMalformed, match=r"640 x 700.*has the shape \[640, 768\]") as caught:
        place_or_refuse(file, architectures.index("sd15"), "sd15")
    assert caught.value.key.startswith(ATTN2)


def test_a_file_for_another_width_says_so() -> None:
    """What fits no base is told with its cross-attention width, SDXL's refiner by its name."""
    assert no_base(adapter((ATTN2, 640, 4096))).endswith("its cross-attention width is 4096")
    refiner = adapter(("lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k", 768, 1280))
    assert base(refiner) == "unknown"
    assert no_base(refiner).endswith("its cross-attention width is 1280, as SDXL's refiner's is")
    assert no_base(adapter(("lora_unet_extra", 5, 5))).endswith("'lora_unet_extra' is one of its modules")


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"my_style": torch.ones(4, 768)}, "textual inversion"),
        ({"a.b": torch.ones(4, 768)}, "holds no LoRA tensors"),
        ({"my_style": torch.ones(4, 769)}, "holds no LoRA tensors"),
    ],
)
def test_an_embedding_under_any_name(tensors: dict[str, torch.Tensor], words: str) -> None:
    """Diffusers names an embedding after its token, which may be any word: its width tells."""
    with pytest.raises(LoraIncompatible, match=words):
        adapter_of(tensors)


@pytest.mark.parametrize(
    ("name", "expected", "count"),
    [
        ("civitai_sd15_kohya_shinkai_makoto_offset", "sd15", 264),
        ("civitai_sdxl_kohya_alien_style", "sdxl", 986),
        ("real_defectdiffusion_unet_lora_adapter_model", "sd15", 128),
        ("real_faithsang_adapter_model", "sd15", 96),
        ("real_ivanby12_sd2_pytorch_lora_weights", "sd2", 128),
        ("real_timohavdk_new", "sd15", 128),
    ],
)
def test_real_files_are_for_their_base_alone(name: str, expected: str, count: int) -> None:
    """Every module of a published file is placed in its base, and every other base refuses it by name."""
    file = of_real_shapes(name)
    found = base_of(file)
    assert found is not None
    assert found[0] == expected
    assert found[1].complete
    assert not found[1].unmatched(file)
    assert len(found[1].placed) == count
    for other in {"sd15", "sd2", "sdxl"} - {expected}:
        with pytest.raises(LoraIncompatible, match=f"is for {BASES[expected].short} "):
            place_or_refuse(file, architectures.index(other), other)
