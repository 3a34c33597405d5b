"""The run of "Boosting Generative Networks for Incremental Learning"."""

from __future__ import annotations

from dataclasses import replace

from gankit.game.penalties import Orthogonal
from gankit.recipes.leakyema import BIGGAN_CIFAR
from gankit.recipes.recipe import Networks

RECIPES = [
    replace(
        BIGGAN_CIFAR,
        name="incremental-biggan-cifar10",
        about="Boosting Generative Networks for Incremental Learning, appendix A.1: the BigGAN of tables 1 to 3, with "
        "skip-z, a shared embedding and orthogonal regularisation; the best generator of the run is kept (--best). The "
        "paper prints neither the width nor the strength of the regularisation (BigGAN's 1e-4), nor n_dis, Adam's "
        "betas and the averaging (those of the BigGAN authors' script for CIFAR-10)",
        paper="incremental A.1",
        networks=Networks("biggan", z_dim=80, y_dim=80, width=64),
        steps=100_000,
        batch_size=64,
        g_terms=(Orthogonal(1e-4),),
    )
]
