"""Attacks on video classifiers: one a file, one signature, diagnostics for every video."""

from artpaper.attacks.adapter import Adapter
from artpaper.attacks.attention import AttentionColumns, attention_pgd
from artpaper.attacks.auto_projected_gradient import apgd
from artpaper.attacks.deepfool import Criterion, deepfool
from artpaper.attacks.ensemble import ensemble
from artpaper.attacks.minimum_norm import fmn
from artpaper.attacks.multilabel_deepfool import multilabel_deepfool
from artpaper.attacks.objectives import OBJECTIVES, Objective, bce, dlr, margin, predicted_bce, top_k_ap
from artpaper.attacks.one_step import fgm
from artpaper.attacks.projected_gradient import pgd
from artpaper.attacks.random_direction import random_direction
from artpaper.attacks.result import Attack, checked, hit, input_gradient
from artpaper.attacks.square import square
from artpaper.attacks.structured import fit_universal, k_frames, one_modality, universal
from artpaper.attacks.transfer import transfer
from artpaper.ball import Norm, Scope, l2_norm, project, steepest

__all__ = [
    "OBJECTIVES",
    "Adapter",
    "Attack",
    "AttentionColumns",
    "Criterion",
    "Norm",
    "Objective",
    "Scope",
    "apgd",
    "attention_pgd",
    "bce",
    "checked",
    "deepfool",
    "dlr",
    "ensemble",
    "fgm",
    "fit_universal",
    "fmn",
    "hit",
    "input_gradient",
    "k_frames",
    "l2_norm",
    "margin",
    "multilabel_deepfool",
    "one_modality",
    "pgd",
    "predicted_bce",
    "project",
    "random_direction",
    "square",
    "steepest",
    "top_k_ap",
    "transfer",
    "universal",
]
