"""The costs that the lecture compares, each as its paper has it, on the settings of the sample-weighting runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gankit.game.balance import BeganBalance
from gankit.game.penalties import R1, R2, ClipWeights, Dragan, WganGP
from gankit.recipes.recipe import Networks, Recipe
from gankit.recipes.sample_weighting import SETTINGS
from gankit.training.optimisers import Adam, Optimizer, RMSProp

PAIRS = (R1(0.1), R2(0.1))
BALANCE = (BeganBalance(0.5, 1e-3),)
"""Gamma and rate of the paper."""
QUICK_BALANCE = (BeganBalance(0.5, 1e-2),)

ROWS: list[tuple[str, str, str, dict[str, Any]]] = [
    ("wgan", "WGAN: weights of D clipped to 0.01, RMSProp", "WGAN algorithm 1",
     dict(loss="wgan", projections=(ClipWeights(0.01),))),
    ("wgan-gp", "WGAN-GP: a gradient penalty of 10", "WGAN-GP algorithm 1", dict(loss="wgan", d_terms=(WganGP(10.0),))),
    ("ls", "least squares", "LSGAN equation 9", dict(loss="ls")),
    ("hinge", "hinge", "SNGAN equation 17", dict(loss="hinge")),
    ("dragan", "DRAGAN: non-saturating, a gradient penalty of 10 around the data", "DRAGAN algorithm 1",
     dict(loss="ns", d_terms=(Dragan(10.0),))),
    ("began", "BEGAN: D rebuilds samples, gamma 0.5", "BEGAN section 3.5", dict(loss="began")),
    ("rpgan", "RpGAN with R1 and R2 of 0.1, a strength of our choice", "R3GAN equation 2",
     dict(loss="rpgan", d_terms=PAIRS)),
]  # fmt: skip
"""Name, title, paper, and what a cost is whatever the setting."""


def _both(optimizer: Optimizer, n_dis: int = 1) -> dict[str, Any]:
    return dict(g_optimizer=optimizer, d_optimizer=optimizer, n_dis=n_dis)


WGAN, WGANGP = _both(RMSProp(5e-5), 5), _both(Adam(1e-4, beta1=0.0, beta2=0.9), 5)
BEGAN = dict(rules=BALANCE, networks=Networks("began", z_dim=64, width=64)) | _both(Adam(8e-5, beta1=0.9))

VALUES: dict[tuple[str, str], dict[str, Any]] = {
    ("wgan", "mnist-conv4"): WGAN,
    ("wgan", "cifar10-conv4"): WGAN,
    ("wgan-gp", "mnist-conv4"): WGANGP,
    ("wgan-gp", "cifar10-conv4"): WGANGP,
    ("began", "mnist-conv4"): BEGAN,
    ("began", "cifar10-conv4"): BEGAN,
    ("wgan", "digits"): _both(RMSProp(3e-4), 4),
    ("wgan-gp", "digits"): _both(Adam(1e-3, beta1=0.0, beta2=0.9), 4),
    ("dragan", "digits"): _both(Adam(3e-3), 4),
    ("rpgan", "digits"): _both(Adam(3e-3), 4),
    ("began", "digits"): dict(rules=QUICK_BALANCE, networks=Networks("began-mlp", z_dim=16, depth=3, width=64)),
    ("wgan", "ring"): _both(RMSProp(3e-4)),
    ("wgan-gp", "ring"): _both(Adam(3e-3, beta1=0.0, beta2=0.9), 4),
    ("dragan", "ring"): _both(Adam(3e-3), 4),
    ("rpgan", "ring"): _both(Adam(3e-3)),
    ("began", "ring"): dict(rules=QUICK_BALANCE, networks=Networks("began-mlp", z_dim=8, depth=3, width=64)),
}  # fmt: skip
"""Cost and setting -> what differs from the setting: for MNIST and CIFAR-10 rates and steps of D from the cost's paper,
for digits and the ring the best of the six that chapter 3 of the book tries (not LS and the hinge, which
are to differ from NS by the cost alone, nor BEGAN, which failed in all).
BEGAN's paper halves its rate as training goes on, which these do not, and has more filters."""


def _recipe(row: tuple[str, str, str, dict[str, Any]], setting: Recipe) -> Recipe:
    name, title, paper, cost = row
    where = {"ring": "a ring of 8 Gaussians", "digits": "digits"}
    known = where.get(setting.name) or {"mnist": "MNIST", "cifar10": "CIFAR-10"}[setting.data] + ", Conv-4"
    about = f"{title}, on {known.replace('Conv-4', 'its autoencoder') if name == 'began' else known}"
    values = VALUES.get((name, setting.name), {})
    return replace(setting, name=f"{name}-{setting.name}", about=about, paper=paper, **cost | values)


RECIPES = [
    _recipe(row, setting)
    for row in ROWS
    for setting in SETTINGS
    if setting.name in ("digits", "ring", "mnist-conv4", "cifar10-conv4")
]
