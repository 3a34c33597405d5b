"""The runs of "Mean Teachers Can Train Superior GANs", and those without a leak that its tables compare with."""

from __future__ import annotations

from dataclasses import replace

from gankit.game.leak import Leak
from gankit.game.penalties import WganGP
from gankit.recipes.recipe import Networks, Recipe
from gankit.training.average import EMA
from gankit.training.optimisers import Adam

SNGAN_128 = Recipe(
    "", "", size=128, networks=Networks("sngan", z_dim=128, width=None), loss="hinge", steps=250_000, batch_size=64,
    n_dis=5, g_optimizer=Adam(2e-4), d_optimizer=Adam(2e-4), ema=EMA(0.999),
)  # fmt: skip
"""Section 4.1 and appendix B; networks of Miyato et al. 2018, table 6."""
WGANGP_128 = replace(
    SNGAN_128, networks=Networks("wgan-gp", z_dim=128, width=None), loss="wgan", d_terms=(WganGP(10.0),),
    g_optimizer=Adam(1e-4, beta1=0.5, beta2=0.9), d_optimizer=Adam(1e-4, beta1=0.5, beta2=0.9),
)  # fmt: skip
"""Appendix B."""
WGANGP_TABLE5 = replace(
    WGANGP_128, g_optimizer=Adam(1e-4, beta1=0.0, beta2=0.9), d_optimizer=Adam(1e-4, beta1=0.0, beta2=0.9)
)
"""Appendix D."""
BIGGAN_CIFAR = Recipe(
    "", "", data="cifar10", networks=Networks("biggan-cifar", z_dim=128, width=64), loss="hinge", steps=125_000,
    batch_size=50, n_dis=4, g_optimizer=Adam(2e-4, beta1=0.0), d_optimizer=Adam(2e-4, beta1=0.0),
    ema=EMA(0.9999, start=1_000),
)  # fmt: skip
"""`launch_cifar_ema.sh` of the authors' PyTorch code: 500 epochs, each step of G reads 4 x 50 of 50,000 pictures."""
BIGGAN_128 = Recipe(
    "", "", size=128, networks=Networks("biggan", z_dim=120, y_dim=128, width=96), loss="hinge", steps=200_000,
    batch_size=256, accumulate=8, ema=EMA(0.9999, start=20_000),
    g_optimizer=Adam(1e-4, beta1=0.0, eps=1e-6), d_optimizer=Adam(4e-4, beta1=0.0, eps=1e-6),
)  # fmt: skip
"""`launch_BigGAN_bs256x8.sh` of the authors' PyTorch code: batches of 2,048."""

CHURCH, BEDROOM, FFHQ = "lsun-church128", "lsun-bedroom128", "ffhq128"
COLUMNS = "its columns are --leak-beta 0, 0.25, 0.5 and 0.75 (the row N = 100k is leakyema-sngan-church128)"
LENGTH = "; the 250,000 steps are those of table 1"
DIVERGED = "; the paper found that it does not converge"
OURS = ". The leak's beta = 0.25 is the paper's; its N is not printed, and SNGAN's on the same data is our choice"

ROWS = [
    ("sngan-church128", SNGAN_128, CHURCH, None, "table 3",
     "tables 1 (column beta = 0), 3 and 5, row SNGAN: church at 128 x 128 without a leak"),
    ("leakyema-sngan-church128", SNGAN_128, CHURCH, Leak(0.5, 100_000), "table 3",
     "tables 3 and 5, row SNGAN+LeakyEMA: church at 128 x 128, beta = 0.5, N of figure 12"),
    ("sngan-bedroom128", SNGAN_128, BEDROOM, None, "table 3",
     f"tables 3 and 5, row SNGAN: bedroom at 128 x 128 without a leak{LENGTH}"),
    ("leakyema-sngan-bedroom128", SNGAN_128, BEDROOM, Leak(0.5, 80_000), "table 3",
     f"tables 3 and 5, row SNGAN+LeakyEMA: bedroom at 128 x 128, beta = 0.5, N of figure 5{LENGTH}"),
    ("sngan-ffhq128", SNGAN_128, FFHQ, None, "table 3",
     f"tables 3 and 5, row SNGAN: ffhq at 128 x 128 without a leak{LENGTH}"),
    ("leakyema-sngan-ffhq128", SNGAN_128, FFHQ, Leak(0.5, 60_000), "table 3",
     f"tables 3 and 5, row SNGAN+LeakyEMA: ffhq at 128 x 128, beta = 0.5, N of figure 13{LENGTH}"),
    ("leakyema-sngan-church128-80k", SNGAN_128, CHURCH, Leak(0.5, 80_000), "table 1",
     f"table 1, row N = 80k; {COLUMNS}"),
    ("leakyema-sngan-church128-120k", SNGAN_128, CHURCH, Leak(0.5, 120_000), "table 1",
     f"table 1, row N = 120k; {COLUMNS}"),
    ("leakyema-sngan-church128-140k", SNGAN_128, CHURCH, Leak(0.5, 140_000), "table 1",
     f"table 1, row N = 140k; {COLUMNS}"),
    ("leakyema-sngan-church128-async-noise", SNGAN_128, CHURCH, Leak(0.5, 100_000, "async-noise"), "table 2",
     "table 2, column async-noise: the teacher on a z of its own"),
    ("leakyema-sngan-church128-generator", SNGAN_128, CHURCH, Leak(0.5, 100_000, "generator"), "section 4.1",
     "section 4.1, random samples of the generator in place of the teacher's"),
    ("leakyema-sngan-church128-most-realistic", SNGAN_128, CHURCH, Leak(0.5, 100_000, "most-realistic"),
     "section 4.1",
     "section 4.1, the generator's samples that the discriminator likes best"),
    ("wgangp-church128", WGANGP_128, CHURCH, None, "table 3",
     "table 3, row WGAN-GP: church at 128 x 128, Adam's beta1 = 0.5"),
    ("leakyema-wgangp-church128", WGANGP_128, CHURCH, Leak(0.25, 100_000), "table 3",
     f"table 3, row WGAN-GP+LeakyEMA: church at 128 x 128, Adam's beta1 = 0.5{OURS}"),
    ("wgangp-church128-table5", WGANGP_TABLE5, CHURCH, None, "table 5",
     "table 5, row WGAN-GP: church at 128 x 128, Adam's beta1 = 0"),
    ("leakyema-wgangp-church128-table5", WGANGP_TABLE5, CHURCH, Leak(0.25, 100_000), "table 5",
     f"table 5, row WGAN-GP+LeakyEMA: church at 128 x 128, Adam's beta1 = 0{OURS}"),
    ("wgangp-bedroom128", WGANGP_128, BEDROOM, None, "table 3",
     "table 3, row WGAN-GP: bedroom at 128 x 128, Adam's beta1 = 0.5"),
    ("leakyema-wgangp-bedroom128", WGANGP_128, BEDROOM, Leak(0.25, 80_000), "table 3",
     f"table 3, row WGAN-GP+LeakyEMA: bedroom at 128 x 128, Adam's beta1 = 0.5{OURS}"),
    ("wgangp-bedroom128-table5", WGANGP_TABLE5, BEDROOM, None, "table 5",
     "table 5, row WGAN-GP: bedroom at 128 x 128, Adam's beta1 = 0"),
    ("leakyema-wgangp-bedroom128-table5", WGANGP_TABLE5, BEDROOM, Leak(0.25, 80_000), "table 5",
     f"table 5, row WGAN-GP+LeakyEMA: bedroom at 128 x 128, Adam's beta1 = 0{OURS}"),
    ("wgangp-ffhq128", WGANGP_128, FFHQ, None, "table 3",
     f"table 3, row WGAN-GP: ffhq at 128 x 128, Adam's beta1 = 0.5{DIVERGED}"),
    ("leakyema-wgangp-ffhq128", WGANGP_128, FFHQ, Leak(0.25, 60_000), "table 3",
     f"table 3, row WGAN-GP+LeakyEMA: ffhq at 128 x 128, Adam's beta1 = 0.5{DIVERGED}{OURS}"),
    ("wgangp-ffhq128-table5", WGANGP_TABLE5, FFHQ, None, "table 5",
     f"table 5, row WGAN-GP: ffhq at 128 x 128, Adam's beta1 = 0{DIVERGED}"),
    ("leakyema-wgangp-ffhq128-table5", WGANGP_TABLE5, FFHQ, Leak(0.25, 60_000), "table 5",
     f"table 5, row WGAN-GP+LeakyEMA: ffhq at 128 x 128, Adam's beta1 = 0{DIVERGED}{OURS}"),
    ("biggan-cifar10", BIGGAN_CIFAR, "cifar10", None, "table 6",
     "table 6, row BigGAN on CIFAR-10; the paper refers to the authors' PyTorch code, whose script gives the "
     "other settings (but its initial weights are normal, and here orthogonal)"),
    ("leakyema-biggan-cifar10", BIGGAN_CIFAR, "cifar10", Leak(0.5, 60_000), "table 6",
     "table 6, row BigGAN+LeakyEMA on CIFAR-10: biggan-cifar10 with a leak. Its beta and N are not printed: "
     "0.5, the value of section 4.1, and 60,000 are our choice"),
    ("biggan-imagenet128", BIGGAN_128, "imagenet128", None, "table 4",
     "tables 4 and 6, row BigGAN: ImageNet at 128 x 128, batches of 8 x 256; the paper refers to "
     "the authors' PyTorch code, whose script gives the other settings. The tables compare with the public "
     "checkpoint (138,000 steps), which `gankit import-biggan` reads; 200,000 steps, enough for the collapse "
     "of figure 8, are our choice"),
    ("leakyema-biggan-imagenet128", BIGGAN_128, "imagenet128", Leak(0.75, 120_000), "table 4",
     "tables 4 and 6, row BigGAN+LeakyEMA: biggan-imagenet128 with a leak, beta = 0.75 and N = 120k as in "
     "figure 8"),
]  # fmt: skip
"""Name, everything but data and leak, data, leak, where the paper has it, and what it is."""

RECIPES = [
    Recipe(
        "leakyema-digits",
        "LeakyEMA on digits: non-saturating, half of the real samples replaced from step 2,000 on",
        networks=Networks("mlp", z_dim=16, depth=3, width=64, d_depth=4), steps=4_000, batch_size=32,
        leak=Leak(0.5, 2_000),
    ),
    *(
        replace(
            base, name=name, data=data, leak=leak, paper=f"LeakyEMA {where}",
            about=f"Mean Teachers Can Train Superior GANs, {about}",
        )
        for name, base, data, leak, where, about in ROWS
    ),
]  # fmt: skip
