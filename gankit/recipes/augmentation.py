"""The runs of the lecture's pages on augmentation: consistency, DiffAugment, ADA; and small ones on few digits."""

from __future__ import annotations

from dataclasses import replace

from gankit.game.augment import ADA, AdaptP, DiffAugment, Flips
from gankit.game.consistency import BCR, CR, ZCR, Diversity
from gankit.game.penalties import R1
from gankit.recipes import style
from gankit.recipes.leakyema import BIGGAN_CIFAR
from gankit.recipes.recipe import Networks, Recipe
from gankit.training.average import EMA
from gankit.training.optimisers import Adam

SNGAN_CIFAR = Recipe(
    "", "", data="cifar10", networks=Networks("sngan", z_dim=128, width=256), loss="hinge", steps=100_000,
    batch_size=64, n_dis=5, g_optimizer=Adam(2e-4, 0.0, 0.9), d_optimizer=Adam(2e-4, 0.0, 0.9), ema=EMA(0.999),
)  # fmt: skip
"""Miyato et al. 2018, table 7 and appendix B, without the linear fall of the rates; CR's paper takes the same."""
DIGITS = Recipe(
    "", "", subset=100, networks=Networks("mlp", z_dim=64, depth=3, width=192), steps=4_000, d_terms=(R1(0.1),),
    g_optimizer=Adam(4e-4), d_optimizer=Adam(4e-4),
)  # fmt: skip
"""`figures.lecture.few_data`."""

BIGGAN = (
    "Networks, rates and steps are those of biggan-cifar10 (the BigGAN authors' script), width 64 where the table's "
    "is 96"
)
TENTH = 5_000
"""A tenth of CIFAR-10."""

ROWS = [
    ("cr-sngan-cifar10", SNGAN_CIFAR, {"d_terms": (CR(10.0, "flip,shift"),)}, "CR table",
     "CR, table of augmentations, row random shift and flip; the other rows are --d-terms.cr.steps noise, cutout and "
     "flip,shift,cutout. Cost, rates and the number of steps are SNGAN's with the hinge, our choice"),
    ("cr-biggan-cifar10", BIGGAN_CIFAR, {"d_terms": (CR(10.0),)}, "CR",
     f"CR on BigGAN, CIFAR-10 (FID 11.48 in the lecture's table). {BIGGAN}"),
    ("bcr-biggan-cifar10", BIGGAN_CIFAR, {"d_terms": (BCR(10.0, 10.0),)}, "ICR",
     f"balanced CR on BigGAN, CIFAR-10. {BIGGAN}"),
    ("icr-biggan-cifar10", BIGGAN_CIFAR, {"d_terms": (BCR(10.0, 10.0), ZCR()), "g_terms": (Diversity(),)}, "ICR",
     "ICR = bCR + zCR on BigGAN, CIFAR-10 (FID 9.21 in the lecture's table). Strengths and the noise of zCR are those "
     f"of a public programme. {BIGGAN}"),
    ("biggan-cifar10-10percent", BIGGAN_CIFAR, {"subset": TENTH, "data_augment": Flips(0.5)}, "DiffAugment CIFAR",
     f"the baseline of DiffAugment with 10 % of CIFAR-10, which images is our choice. {BIGGAN}"),
    ("diffaugment-cifar10-10percent", BIGGAN_CIFAR,
     {"subset": TENTH, "data_augment": Flips(0.5), "augment": DiffAugment("color,translation,cutout")},
     "DiffAugment CIFAR",
     f"DiffAugment with 10 % of CIFAR-10, which images is our choice. {BIGGAN}"),
    ("ada-biggan-cifar10", BIGGAN_CIFAR, {"augment": ADA(), "rules": (AdaptP(),)}, "ADA CIFAR-10",
     "ADA's pipeline and rule (target 0.6, 500,000 images) on BigGAN for CIFAR-10; the paper's network is StyleGAN2. "
     f"{BIGGAN}"),
    ("ada-cifar10", style.CIFAR, {"augment": ADA(), "rules": (AdaptP(),)}, "ADA figure 11",
     "StyleGAN2 with ADA on CIFAR-10, without labels: stylegan2-cifar10 with the pipeline blit, geometric, colour, "
     "target 0.6 and 500,000 images from p = 0 to 1; interpolation is bilinear, without the paper's filter"),
    ("few-digits", DIGITS, {}, "", "100 digits, no method: D learns them by heart"),
    ("diffaugment-few-digits", DIGITS, {"augment": DiffAugment("translation,cutout")}, "",
     "100 digits with DiffAugment"),
    ("ada-few-digits", DIGITS, {"augment": ADA(), "rules": (AdaptP(images=50_000),)}, "",
     "100 digits with ADA; p may go from 0 to 1 in a fifth of the run"),
    ("bcr-few-digits", DIGITS, {"d_terms": (R1(0.1), BCR(10.0, 10.0))}, "", "100 digits with balanced CR"),
]  # fmt: skip
"""Name, what it is based on, what it changes, where the paper has it, and what it is."""

RECIPES = [
    replace(base, name=name, about=about, paper=paper, **changes)
    for name, base, changes, paper, about in ROWS
]
