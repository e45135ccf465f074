"""The newer methods of PEFT that are applied: their tensors and formulas."""

from __future__ import annotations

from collections.abc import Sequence

from sdgrpc.lora.algorithms import methods, outputs, reflections
from sdgrpc.lora.algorithms.algorithm import Algorithm, roles

NOTHING = roles("")

DELORA = Algorithm(
    "delora",
    "DeLoRA",
    roles("delora_A delora_B delora_lambda delora_w_norm"),
    NOTHING,
    methods.delora_size,
    methods.delora_rank,
    factors=methods.delora,
)
GRALORA = Algorithm(
    "gralora",
    "GraLoRA",
    roles("gralora_A gralora_B"),
    roles("gralora_A_general gralora_B_general"),
    methods.gralora_size,
    methods.gralora_rank,
    change=methods.gralora,
    has_alpha=True,
)
HIRA = Algorithm(
    "hira",
    "HiRA",
    roles("hira_A hira_B"),
    NOTHING,
    methods.hira_size,
    methods.hira_rank,
    weighted=methods.hira,
)
C3A = Algorithm("c3a", "C3A", roles("c3a_kernel"), NOTHING, methods.c3a_size, change=methods.c3a)
VERA = Algorithm(
    "vera",
    "VeRA",
    roles("vera_lambda_b vera_lambda_d vera_A vera_B"),
    NOTHING,
    methods.vera_size,
    methods.vera_rank,
    weighted=methods.vera,
)
SHIRA = Algorithm(
    "shira", "SHiRA", roles("shira_weight shira_indices"), NOTHING, methods.shira_size, weighted=methods.shira
)
FOURIERFT = Algorithm(
    "fourierft",
    "FourierFT",
    roles("fourierft_spectrum"),
    NOTHING,
    methods.fourierft_size,
    weighted=methods.fourierft,
)
MISS = Algorithm(
    "miss", "MiSS", roles("miss_block"), NOTHING, methods.miss_size, methods.miss_rank, weighted=methods.miss
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
    outputs.tuned_norm_size,
    weighted=outputs.tuned_norm,
    weighted_bias=outputs.tuned_norm_bias,
)
ROAD = Algorithm(
    "road",
    "RoAd",
    roles("road_theta road_alpha"),
    NOTHING,
    outputs.road_size,
    weighted=outputs.road,
    weighted_bias=outputs.road_bias,
)
PEFT_IA3 = Algorithm(
    "ia3",
    "(IA)^3",
    roles("ia3_l"),
    NOTHING,
    outputs.peft_ia3_size,
    weighted=outputs.peft_ia3,
    weighted_bias=outputs.peft_ia3_bias,
)

PEFT_KINDS: Sequence[Algorithm] = (
    *(DELORA, GRALORA, HIRA, C3A, VERA, SHIRA, FOURIERFT, MISS, HRA, PEFT_BOFT),
    *(LN_TUNING, ROAD, PEFT_IA3),
)
