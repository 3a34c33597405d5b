"""Ways to condition: the lecture's comparison of discriminators at its scale, and settings of our own on small data."""

from __future__ import annotations

from dataclasses import replace

from gankit.game.classes import LearnClasses, ShowClasses
from gankit.game.penalties import R1
from gankit.recipes.recipe import Networks, Recipe
from gankit.training.average import EMA
from gankit.training.optimisers import Adam

IMAGENET_128 = Recipe(
    "", "", data="imagenet128", size=128, networks=Networks("sngan", z_dim=128, width=64), loss="hinge", steps=450_000,
    batch_size=256, n_dis=5, accumulate=4, g_optimizer=Adam(2e-4, 0.0, 0.9), d_optimizer=Adam(2e-4, 0.0, 0.9),
    ema=EMA(0.999),
)  # fmt: skip
"""Miyato and Koyama 2018, section 5; their rates fall to 0 in the last 50,000 steps, and stay here."""
CIFAR = replace(
    IMAGENET_128, data="cifar10", size=None, networks=Networks("sngan", z_dim=128, width=256), steps=50_000,
    batch_size=64, accumulate=1,
)  # fmt: skip
DIGITS = Recipe(
    "", "", networks=Networks("mlp", z_dim=32, depth=4, width=128), steps=3_000, batch_size=64, d_terms=(R1(0.1),),
    g_optimizer=Adam(5e-4), d_optimizer=Adam(5e-4), ema=EMA(0.995),
)  # fmt: skip
MNIST = replace(
    DIGITS, data="mnist", networks=Networks("conv", z_dim=32, depth=4, width=16), d_terms=(R1(1.0),)
)

WAYS = {
    "projection": ("projection", "a projection of the label in D"),
    "cgan-concat": ("concat-hidden", "the label joined to a hidden layer of D"),
    "acgan": (
        "class-head",
        "AC-GAN: a class head of D, in both costs with weight 1, on real and generated samples",
    ),
}
"""Name -> how D reads labels, and in words."""
SMALL_WAYS = {"concat": ("concat", "the label joined to D's input"), **WAYS}
SCALES = (
    (IMAGENET_128, "batch-norm", WAYS, "lecture, projection table",
     "Miyato and Koyama 2018, section 5 (the lecture's table): ImageNet at 128 x 128, conditional batch norm in G, "
     "batches of 4 x 64 for one GPU"),
    (CIFAR, "batch-norm", WAYS, "",
     "the lecture's comparison at 32 x 32, CIFAR-10, conditional batch norm in G. The paper has no such run: networks "
     "are those of Miyato et al. 2018, table 4, and steps and batches our choice"),
    (DIGITS, "one-hot", SMALL_WAYS, "", "conditional digits, the label joined to z in G"),
    (MNIST, "one-hot", SMALL_WAYS, "", "conditional MNIST, Conv-4, the label joined to z in G"),
)  # fmt: skip


def conditioned(base: Recipe, d_way: str, g_way: str) -> Recipe:
    """A recipe with these ways of conditioning; with a class head, AC-GAN's two terms join its own."""
    y_dim = 128 if base.networks.family == "sngan" and d_way == "concat-hidden" else None
    networks = replace(base.networks, g_condition=g_way, d_condition=d_way, y_dim=y_dim)
    if d_way != "class-head":
        return replace(base, networks=networks)
    d_terms, g_terms = (*base.d_terms, LearnClasses()), (*base.g_terms, ShowClasses())
    return replace(base, networks=networks, d_terms=d_terms, g_terms=g_terms)


RECIPES = [
    replace(
        conditioned(base, d_way, g_way), name=f"{name}-{base.data}", paper=paper, about=f"{about}; {what}"
    )
    for base, g_way, ways, paper, about in SCALES
    for name, (d_way, what) in ways.items()
]
