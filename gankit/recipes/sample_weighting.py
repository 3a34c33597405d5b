"""Runs of "Sample weighting as an explanation for mode collapse": its settings, each with several costs."""

from __future__ import annotations

from dataclasses import replace

from gankit.recipes import style
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

LARGE_COSTS = COSTS | {"hinge": "hinge cost", "ls": "least squares"}

OURS = "The paper prints neither filters nor length for CAT: these and 50,000 steps are our choice"
FFHQ_OURS = (
    "The paper prints nine layers at 512 x 512, which end in 2 x 2 pixels: a depth that ends there at each size, and "
    "the filters, are our choice"
)
RATE = "Half the rate of setting C of Miyato et al. 2018, as appendix M says of its other networks"

_CAT = Recipe(
    "", "", data="cat128", size=128, steps=50_000, batch_size=128, g_optimizer=Adam(1e-4), d_optimizer=Adam(1e-4)
)  # fmt: skip
_FFHQ = replace(_CAT, data="", size=None, steps=546_875)

LARGE = [
    # name, everything but networks and costs, networks, costs, where the paper has it, and what it is.
    ("conv6-cat128", _CAT, Networks("conv", z_dim=64, depth=6, width=32), ("ns", "mm-nsat", "hinge", "ls"),
     "figure 21", f"on CAT at 128 x 128, Conv-6 (MM-nsat paper, figures 1, 21 and 22c). {OURS}"),
    ("conv6-sn-cat128", _CAT, Networks("conv-sn", z_dim=64, depth=6, width=32), ("ns", "mm-nsat"),
     "figure 22", "on CAT at 128 x 128, Conv-6 with spectral normalisation in D (MM-nsat paper, figure 22d). " + OURS),
    ("dcgan-bn-sn-cat128", _CAT, Networks("dcgan-bn-sn", z_dim=100, width=64), ("ns", "mm-nsat", "hinge", "ls"),
     "figure 21", "on CAT at 128 x 128, DCGAN with batch and spectral normalisation in D (MM-nsat paper, figures 21 "
     f"and 22e). {OURS}"),
    ("dcgan-attention-cat128", _CAT, Networks("dcgan-attention", z_dim=100, width=64), ("ns", "mm-nsat"),
     "figure 7", "on CAT at 128 x 128, DCGAN with spectral normalisation in D and self-attention (MM-nsat paper, "
     "figures 7, 22a and 22b). Where it attends is not printed: at 32 x 32, as SAGAN, is our choice. " + OURS),
    *(
        (f"conv{depth}-ffhq{size}", replace(_FFHQ, data=f"ffhq{size}", size=size),
         Networks("conv", z_dim=64, depth=depth, width=width), ("ns", "mm-nsat"), "figure 23",
         f"on FFHQ at {size} x {size}, Conv-{depth} (MM-nsat paper, {where}, 1,000 epochs). {FFHQ_OURS}")
        for size, depth, width, where in (
            (32, 5, 32, "figure 23"), (64, 6, 32, "figure 23"), (128, 7, 32, "figure 23"), (256, 8, 16, "figure 23"),
            (512, 9, 8, "figures 1, 23 and 24"),
        )
    ),
    ("conv4-sn-cifar10", replace(_CAT, data="cifar10", size=None, steps=390_625),
     Networks("conv-sn", z_dim=64, depth=4, width=32), ("ns", "mm-nsat", "hinge", "ls"), "figure 8",
     f"on CIFAR-10, Conv-4 with spectral normalisation in D (MM-nsat paper, bottom of figures 8 and 17, 1,000 epochs). "
     f"{RATE}; 32 filters are our choice"),
    ("sndcgan-cifar10", replace(_CAT, data="cifar10", size=None, steps=390_625, g_optimizer=Adam(2e-4),
                                d_optimizer=Adam(2e-4)),
     Networks("sndcgan", z_dim=128, width=64), ("ns", "mm-nsat"), "figure 14",
     "on CIFAR-10, networks of table 3 and setting C of table 1 of Miyato et al. 2018 (MM-nsat paper, figure 14). "
     "Batches of 128 and 1,000 epochs, as in its other runs, are our choice: it says that both differ from Miyato's"),
]  # fmt: skip
"""Networks and pictures past what a CPU trains: figures 1, 7, 14 and 21 to 24."""

_MIXED = "with minimax, made non-saturating, for its cost (MM-nsat paper, table 4, on 4 GPUs)"

TABLE_4 = [
    replace(
        one,
        name=f"mm-nsat-{one.name}",
        about=f"{one.about}; {_MIXED}",
        paper="MM-nsat table 4",
        loss="mm-nsat",
    )
    for one in style.RECIPES
    if one.name in ("stylegan-ffhq1024", "stylegan-ffhq256")
]
"""StyleGAN with the other cost and nothing else changed. R is over the samples of all processes."""

RECIPES = [
    replace(setting, name=f"{loss}-{setting.name}", about=f"{title} {setting.about}", loss=loss)
    for loss, title in COSTS.items()
    for setting in SETTINGS
] + [
    replace(
        base, name=f"{loss}-{name}", about=f"{LARGE_COSTS[loss]} {about}", paper=f"MM-nsat {paper}",
        networks=networks, loss=loss,
    )
    for name, base, networks, costs, paper, about in LARGE
    for loss in costs
] + TABLE_4  # fmt: skip
