"""The newer methods of PEFT that are applied: their tensors and formulas."""

from __future__ import annotations

from collections.abc import Sequence

from sdgrpc.lora.algorithms import reflections
from sdgrpc.lora.algorithms.algorithm import Algorithm, roles
from sdgrpc.lora.algorithms.peft import formulas, with_bias

NOTHING = roles("")

DELORA = Algorithm(
    "delora",
    "DeLoRA",
    roles("delora_A delora_B delora_lambda delora_w_norm"),
    NOTHING,
    formulas.delora_size,
    formulas.delora_rank,
    factors=formulas.delora,
)
GRALORA = Algorithm(
    "gralora",
    "GraLoRA",
    roles("gralora_A gralora_B"),
    roles("gralora_A_general gralora_B_general"),
    formulas.gralora_size,
    formulas.gralora_rank,
    change=formulas.gralora,
    has_alpha=True,
)
HIRA = Algorithm(
    "hira",
    "HiRA",
    roles("hira_A hira_B"),
    NOTHING,
    formulas.hira_size,
    formulas.hira_rank,
    weighted=formulas.hira,
)
C3A = Algorithm("c3a", "C3A", roles("c3a_kernel"), NOTHING, formulas.c3a_size, change=formulas.c3a)
VERA = Algorithm(
    "vera",
    "VeRA",
    roles("vera_lambda_b vera_lambda_d vera_A vera_B"),
    NOTHING,
    formulas.vera_size,
    formulas.vera_rank,
    weighted=formulas.vera,
)
SHIRA = Algorithm(
    "shira",
    "SHiRA",
    roles("shira_weight shira_indices"),
    NOTHING,
    formulas.shira_size,
    weighted=formulas.shira,
)
FOURIERFT = Algorithm(
    "fourierft",
    "FourierFT",
    roles("fourierft_spectrum"),
    NOTHING,
    formulas.fourierft_size,
    weighted=formulas.fourierft,
)
MISS = Algorithm(
    "miss",
    "MiSS",
    roles("miss_block"),
    NOTHING,
    formulas.miss_size,
    formulas.miss_rank,
    weighted=formulas.miss,
)
HRA = Algorithm(
    "hra",
    "HRA",
    roles("hra_u"),
    NOTHING,
    reflections.hra_size,
    reflections.hra_rank,
    weighted=reflections.hra,
)
PEFT_BOFT = Algorithm(
    "boft",
    "BOFT",
    roles("boft_R boft_s"),
    NOTHING,
    reflections.peft_boft_size,
    reflections.peft_boft_rank,
    weighted=reflections.peft_boft,
)
LN_TUNING = Algorithm(
    "ln_tuning",
    "LN tuning",
    roles("ln_weight"),
    roles("ln_bias"),
    with_bias.tuned_norm_size,
    weighted=with_bias.tuned_norm,
    weighted_bias=with_bias.tuned_norm_bias,
)
ROAD = Algorithm(
    "road",
    "RoAd",
    roles("road_theta road_alpha"),
    NOTHING,
    with_bias.road_size,
    weighted=with_bias.road,
    weighted_bias=with_bias.road_bias,
)
PEFT_IA3 = Algorithm(
    "ia3",
    "(IA)^3",
    roles("ia3_l"),
    NOTHING,
    with_bias.peft_ia3_size,
    weighted=with_bias.peft_ia3,
    weighted_bias=with_bias.peft_ia3_bias,
)

PEFT_KINDS: Sequence[Algorithm] = (
    *(DELORA, GRALORA, HIRA, C3A, VERA, SHIRA, FOURIERFT, MISS, HRA, PEFT_BOFT),
    *(LN_TUNING, ROAD, PEFT_IA3),
)
