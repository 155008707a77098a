"""Attacks on video classifiers: one a file, one signature, diagnostics for every video."""

from artpaper.attacks.ball import l2_norm, steepest
from artpaper.attacks.deepfool import Criterion, deepfool
from artpaper.attacks.ensemble import ensemble
from artpaper.attacks.multilabel_deepfool import multilabel_deepfool
from artpaper.attacks.one_step import fgm
from artpaper.attacks.random_direction import random_direction
from artpaper.attacks.result import Attack, bce, hit, input_gradient, predicted_bce

__all__ = [
    "Attack",
    "Criterion",
    "bce",
    "deepfool",
    "ensemble",
    "fgm",
    "hit",
    "input_gradient",
    "l2_norm",
    "multilabel_deepfool",
    "predicted_bce",
    "random_direction",
    "steepest",
]
