"""Runs of "A Large-Scale Study on Regularization and Normalization in GANs", one for each regulariser, and R3GAN.

The study fixes sets of values; each recipe has one of them, with the networks of this package.
"""

from __future__ import annotations

from dataclasses import replace

from gankit.game.penalties import L2, R1, R2, Dragan, WganGP
from gankit.game.play import Term
from gankit.recipes.recipe import Networks, Recipe
from gankit.training.average import EMA
from gankit.training.optimisers import Adam, CosineDecay

REGULARISERS: dict[str, tuple[str, str, tuple[Term, ...]]] = {
    "gp": ("a gradient penalty of strength 10", "none", (WganGP(10.0),)),
    "dragan": ("DRAGAN's penalty of strength 10", "none", (Dragan(10.0),)),
    "sn": ("spectral normalisation", "spectral", ()),
    "ln": ("layer norm", "layer", ()),
    "bn": ("batch norm", "batch", ()),
    "l2": ("L2 regularisation, of strength 0.01 (our choice)", "none", (L2(0.01),)),
}
"""Name -> what it is, normalisation of D, terms of D. "One penalty strength of {1, 10}" is the study's table 1."""

SETTINGS = (
    Recipe(
        "mnist", "MNIST, with Conv-4", data="mnist", networks=Networks("conv", z_dim=64, depth=4, width=32),
        steps=100_000, batch_size=64,
    ),
    Recipe(
        "cifar10", "CIFAR-10, with SNGAN's residual networks", data="cifar10",
        networks=Networks("sngan", z_dim=128, width=256), steps=100_000, batch_size=64,
    ),
)  # fmt: skip
OURS = "data, networks and steps are our choice"

R3GAN = Recipe(
    "r3gan-cifar10",
    "R3GAN on CIFAR-10: relativistic pairs, R1, R2 and networks without normalisation. Widths, batch, rates and the "
    "first of the falling gammas are those of the authors' settings. Without their labels and augmentation, with gamma "
    "and beta2 constant, biases and a linear layer at 4 x 4, it is not their run; steps are those of their decay",
    paper="R3GAN, CIFAR-10",
    data="cifar10",
    networks=Networks("r3gan", z_dim=64, width=768),
    loss="rpgan",
    steps=39_063,
    batch_size=512,
    g_optimizer=Adam(2e-4, 0.0, 0.99, schedule=CosineDecay(end=39_063, last=0.25)),
    d_optimizer=Adam(2e-4, 0.0, 0.99, schedule=CosineDecay(end=39_063, last=0.25)),
    d_terms=(R1(0.05), R2(0.05)),
    ema=EMA(half_life=5e6),
)
"""Rates fall from 2e-4 to 5e-5 over 20 million images, 39,063 steps of 512."""

RECIPES = [
    *(
        replace(
            setting,
            name=f"{name}-{setting.name}",
            about=f"Kurach et al. 2019, {what}: NS on {setting.about}; rate, betas and n_dis are the second row of "
            f"table 1, {OURS}",
            paper="Kurach et al. table 1",
            networks=replace(setting.networks, normalisation=normalisation),
            d_terms=terms,
            g_optimizer=Adam(2e-4, 0.5, 0.999),
            d_optimizer=Adam(2e-4, 0.5, 0.999),
        )
        for name, (what, normalisation, terms) in REGULARISERS.items()
        for setting in SETTINGS
    ),
    R3GAN,
]
