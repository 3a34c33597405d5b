"""Runs of ProGAN, StyleGAN and StyleGAN2, and small ones on digits."""

from __future__ import annotations

from dataclasses import replace

from gankit.game.path_length import MeanPathLength, PathLength
from gankit.game.penalties import R1, Drift, WganGP
from gankit.game.play import Every
from gankit.recipes.recipe import Networks, Recipe
from gankit.training.average import EMA
from gankit.training.optimisers import Adam


def adam(lr: float, interval: int | None = None) -> Adam:
    """The optimiser of all three papers, corrected for a lazy term."""
    plain = Adam(lr, 0.0, 0.99)
    return plain if interval is None else plain.lazy(interval)


def lazy(gamma: float, lr: float, weight: float = 2.0) -> dict[str, object]:
    """StyleGAN2's terms: R1 in every 16th step, the path length (for a weight above 0) in every fourth."""
    return {
        "d_terms": (Every(R1(gamma), 16),), "d_optimizer": adam(lr, 16), "g_optimizer": adam(lr, 4),
        "g_terms": (Every(PathLength(weight), 4),) if weight else (), "rules": (MeanPathLength(),) if weight else (),
    }  # fmt: skip


PROGAN = Recipe(
    "", "", networks=Networks("progan", z_dim=512, width=16), loss="wgan", d_terms=(WganGP(10.0), Drift(0.001)),
    g_optimizer=adam(1e-3), d_optimizer=adam(1e-3), ema=EMA(0.999), batch_size=16,
)  # fmt: skip
STYLEGAN = Recipe(
    "", "", networks=Networks("stylegan", z_dim=512, width=16), d_terms=(R1(10.0),), g_optimizer=adam(2e-3),
    d_optimizer=adam(2e-3), ema=EMA(half_life=10_000), batch_size=32,
)  # fmt: skip
STYLEGAN2 = Recipe(
    "", "", networks=Networks("stylegan2", z_dim=512, width=32), **lazy(10.0, 2e-3), ema=EMA(half_life=10_000),
    batch_size=32,
)  # fmt: skip
CIFAR = Recipe(
    "", "", data="cifar10", networks=Networks("stylegan2-cifar", z_dim=512, width=512), **lazy(0.01, 2.5e-3, 0.0),
    ema=EMA(half_life=500_000), batch_size=64, steps=1_562_500,
)  # fmt: skip
SMALL = {"z_dim": 32, "width": 16, "max_width": 32}
ONE_RATE = "the paper raises the learning rate with the side, and here it is one"

RECIPES = [
    replace(
        PROGAN, name="progan-digits", about="ProGAN on digits: 4 x 4, then 8 x 8 is faded in",
        networks=Networks("progan", phase=16_000, **SMALL), steps=2_000, batch_size=32,
        g_optimizer=adam(1e-2), d_optimizer=adam(1e-2),
    ),
    replace(
        STYLEGAN, name="stylegan-digits", about="StyleGAN on digits: 8 x 8 at once, which is its smallest side",
        networks=Networks("stylegan", mapping=2, **SMALL), steps=2_000, batch_size=32, d_terms=(R1(0.1),),
        g_optimizer=adam(1e-2), d_optimizer=adam(1e-2),
    ),
    replace(
        STYLEGAN2, name="stylegan2-digits", about="StyleGAN2 on digits",
        networks=Networks("stylegan2", mapping=2, **SMALL), steps=2_000, batch_size=32, **lazy(0.1, 1e-2),
    ),
    replace(
        PROGAN, name="progan-ffhq1024", paper="StyleGAN table 1", data="ffhq1024", size=1024, steps=750_000,
        about="ProGAN on FFHQ at 1,024 x 1,024, row A of StyleGAN's table 1, 12 million images. The paper's batch "
        "shrinks from 16 to 3 as pictures grow, and here it is 16",
    ),
    replace(
        STYLEGAN, name="stylegan-ffhq1024", paper="StyleGAN table 1", data="ffhq1024", size=1024, steps=781_250,
        about="StyleGAN on FFHQ at 1,024 x 1,024, row F of its table 1 and row A of StyleGAN2's, 25 million images; "
        f"{ONE_RATE}",
    ),
    replace(
        STYLEGAN, name="stylegan-ffhq256", paper="MM-nsat table 4", data="ffhq256", size=256, steps=781_250,
        networks=Networks("stylegan", z_dim=512, width=64),
        about=f"StyleGAN on FFHQ at 256 x 256, the networks of its table 1 for smaller pictures; {ONE_RATE}",
    ),
    replace(
        STYLEGAN2, name="stylegan2-ffhq1024", paper="StyleGAN2 table 1", data="ffhq1024", size=1024, steps=781_250,
        about="StyleGAN2 on FFHQ at 1,024 x 1,024, row F of its table 1, 25 million images",
    ),
    replace(
        STYLEGAN2, name="stylegan2-ffhq1024-e", paper="StyleGAN2 table 1", data="ffhq1024", size=1024,
        steps=781_250, networks=Networks("stylegan2", z_dim=512, width=16), **lazy(100.0, 2e-3),
        about="StyleGAN2 on FFHQ at 1,024 x 1,024, row E of its table 1: half as many filters in large feature maps",
    ),
    replace(
        STYLEGAN2, name="stylegan2-ffhq256", paper="ADA table 1", data="ffhq256", size=256, steps=390_625,
        batch_size=64, networks=Networks("stylegan2", z_dim=512, width=64, group=8), **lazy(1.0, 2.5e-3),
        ema=EMA(half_life=20_000),
        about="StyleGAN2 on FFHQ at 256 x 256 as the ADA paper trains it without augmentation, 25 million images",
    ),
    replace(
        CIFAR, name="stylegan2-cifar10", paper="ADA figure 11",
        about="StyleGAN2 on CIFAR-10 as the ADA paper tunes it, without labels and augmentation, 100 million images",
    ),
    replace(
        CIFAR, name="stylegan2-cifar10-conditional", paper="ADA figure 11",
        networks=replace(CIFAR.networks, conditional=True),
        about="StyleGAN2 on CIFAR-10 as the ADA paper tunes it, with labels, 100 million images",
    ),
]  # fmt: skip
