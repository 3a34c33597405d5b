"""Runs of "Sample weighting as an explanation for mode collapse": seven settings, each with three costs."""

from __future__ import annotations

from dataclasses import replace

from gankit.recipes.recipe import Networks, Recipe
from gankit.training.optimisers import Adam

COSTS = {"ns": "non-saturating", "mm": "minimax", "mm-nsat": "minimax, made non-saturating"}

SETTINGS = (
    Recipe(
        "digits", "on digits, in a setting where NS drops classes with time",
        networks=Networks("mlp", z_dim=16, depth=3, width=64, d_depth=4), steps=4_000, batch_size=32,
        g_optimizer=Adam(1e-3), d_optimizer=Adam(1e-3),
    ),
    Recipe(
        "digits-saturating",
        "on digits, in a setting where minimax saturates (beta1 = 0.9, a large learning rate)",
        networks=Networks("mlp", z_dim=16, depth=4, width=48), steps=3_000, batch_size=32,
        g_optimizer=Adam(2e-3, beta1=0.9), d_optimizer=Adam(2e-3, beta1=0.9),
    ),
    Recipe(
        "ring", "on a ring of 8 Gaussians (MM-nsat paper, section 4.1 and appendix S)", "MM-nsat figure 4",
        data="ring", networks=Networks("mlp", z_dim=8, depth=3, width=64), steps=3_000, batch_size=64,
        g_optimizer=Adam(1e-3), d_optimizer=Adam(1e-3),
    ),
    Recipe(
        "spiral", "on a spiral of 12 Gaussians of growing weight (MM-nsat paper, figure 19 and table 3)",
        "MM-nsat table 3",
        data="spiral", networks=Networks("mlp", z_dim=8, depth=4, width=48), steps=4_000, batch_size=64,
        g_optimizer=Adam(1e-3), d_optimizer=Adam(1e-3),
    ),
    Recipe(
        "mnist-fc4",
        "on MNIST, FC-4 (MM-nsat paper, table 1 and figures 5, 6 and 8, 1,000 epochs). "
        "The paper prints neither width nor learning rate: 256 and 1e-4 are our choice",
        "MM-nsat table 1",
        data="mnist", networks=Networks("mlp", z_dim=64, depth=4, width=256), steps=468_750, batch_size=128,
        g_optimizer=Adam(1e-4), d_optimizer=Adam(1e-4),
    ),
    Recipe(
        "mnist-conv4",
        "on MNIST, Conv-4 (MM-nsat paper, figure 8, 1,000 epochs). "
        "The paper prints neither filters nor learning rate: 32 and 1e-4 are our choice",
        "MM-nsat figure 8",
        data="mnist", networks=Networks("conv", z_dim=64, depth=4, width=32), steps=468_750, batch_size=128,
        g_optimizer=Adam(1e-4), d_optimizer=Adam(1e-4),
    ),
    Recipe(
        "cifar10-conv4",
        "on CIFAR-10, Conv-4 (MM-nsat paper, figures 1 and 8; with --r1, figure 18; 1,000 epochs). "
        "The paper prints neither filters nor learning rate: 32 and 1e-4 are our choice",
        "MM-nsat figure 8",
        data="cifar10", networks=Networks("conv", z_dim=64, depth=4, width=32), steps=390_625, batch_size=128,
        g_optimizer=Adam(1e-4), d_optimizer=Adam(1e-4),
    ),
)  # fmt: skip

RECIPES = [
    replace(setting, name=f"{loss}-{setting.name}", about=f"{title} {setting.about}", loss=loss)
    for loss, title in COSTS.items()
    for setting in SETTINGS
]
