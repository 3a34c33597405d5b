"""The named recipes: a run for every row of the papers' tables, with the papers' values.

Where a paper does not print a value, `about` says so and names whose choice it is. `gankit recipes` lists them, with an
estimate of what each costs (`gankit.recipes.operations`).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

from gankit.recipes.recipe import Recipe


class RecipeTable(dict[str, Recipe]):
    """The recipes by name; an unknown name lists near matches."""

    def __missing__(self, name: str) -> Recipe:
        near = difflib.get_close_matches(str(name), self, n=4, cutoff=0.5)
        hint = f"; did you mean {' or '.join(near)}?" if near else "; `gankit recipes` lists them"
        raise UnknownRecipe(f"recipe {name!r} is unknown{hint}")


class UnknownRecipe(KeyError, ValueError):
    """A name that `recipes` does not hold."""

    def __str__(self) -> str:  # KeyError would print the sentence in quotes
        return str(self.args[0])


DIGITS: dict[str, Any] = {"batch_size": 32, "z_dim": 16, "depth": 3, "d_depth": 4}
SNGAN_128: dict[str, Any] = {
    "model": "sngan", "size": 128, "z_dim": 128, "width": None, "loss": "hinge", "steps": 250_000, "batch_size": 64,
    "n_dis": 5, "lr": 2e-4, "beta1": 0.5, "beta2": 0.999, "ema_decay": 0.999,
}  # fmt: skip
"""Section 4.1 and appendix B of the LeakyEMA paper; networks of Miyato et al. 2018, table 6."""
WGANGP_128 = SNGAN_128 | {"model": "wgan-gp", "loss": "wgan", "wgan_gp": 10.0, "lr": 1e-4, "beta2": 0.9}
"""Appendix B of the same."""
BIGGAN_CIFAR: dict[str, Any] = {
    "model": "biggan-cifar", "data": "cifar10", "z_dim": 128, "width": 64, "loss": "hinge", "steps": 125_000,
    "batch_size": 50, "n_dis": 4, "lr": 2e-4, "beta1": 0.0, "ema_decay": 0.9999, "ema_start": 1_000,
}  # fmt: skip
"""`launch_cifar_ema.sh` of the authors' PyTorch code: 500 epochs, each step of G reads 4 x 50 of 50,000 pictures."""
BIGGAN_128: dict[str, Any] = {
    "model": "biggan", "data": "imagenet128", "size": 128, "z_dim": 120, "y_dim": 128, "width": 96, "loss": "hinge",
    "steps": 200_000, "batch_size": 256, "accumulate": 8, "lr": 1e-4, "d_lr": 4e-4, "beta1": 0.0, "adam_eps": 1e-6,
    "ema_decay": 0.9999, "ema_start": 20_000,
}  # fmt: skip
"""`launch_BigGAN_bs256x8.sh` of the authors' PyTorch code: batches of 2,048."""


def _table() -> RecipeTable:
    table = RecipeTable()

    def add(name: str, about: str, **settings: Any) -> None:
        table[name] = Recipe(name, about, **settings)

    _add_sample_weighting(add)
    _add_leakyema(add)
    add(
        "incremental-biggan-cifar10",
        "Boosting Generative Networks for Incremental Learning, appendix A.1: the BigGAN of tables 1 to 3, with "
        "skip-z, a shared embedding and orthogonal regularisation; the best generator of the run is kept (--best). The "
        "paper prints neither the width nor the strength of the regularisation (BigGAN's 1e-4), nor n_dis, Adam's "
        "betas and the averaging (those of the BigGAN authors' script for CIFAR-10)",
        paper="incremental A.1",
        **BIGGAN_CIFAR | {
            "model": "biggan", "z_dim": 80, "y_dim": 80, "steps": 100_000, "batch_size": 64, "orthogonal": 1e-4,
        },
    )  # fmt: skip
    return table


def _add_sample_weighting(add: Callable[..., None]) -> None:
    """The costs of "Sample weighting as an explanation for mode collapse", each in the same settings."""
    titles = {"ns": "non-saturating", "mm": "minimax", "mm-nsat": "minimax, made non-saturating"}
    for loss, title in titles.items():
        add(
            f"{loss}-digits",
            f"{title} on digits, in a setting where NS drops classes with time",
            loss=loss, steps=4_000, **DIGITS,
        )  # fmt: skip
        add(
            f"{loss}-digits-saturating",
            f"{title} on digits, in a setting where minimax saturates (beta1 = 0.9, a large learning rate)",
            loss=loss, steps=3_000, batch_size=32, z_dim=16, depth=4, width=48, lr=2e-3, beta1=0.9,
        )  # fmt: skip
        add(
            f"{loss}-ring",
            f"{title} on a ring of 8 Gaussians (MM-nsat paper, section 4.1 and appendix S)",
            paper="MM-nsat figure 4", loss=loss, data="ring", steps=3_000, z_dim=8, depth=3,
        )  # fmt: skip
        add(
            f"{loss}-spiral",
            f"{title} on a spiral of 12 Gaussians of growing weight (MM-nsat paper, figure 19 and table 3)",
            paper="MM-nsat table 3", loss=loss, data="spiral", steps=4_000, z_dim=8, depth=4, width=48,
        )  # fmt: skip
        add(
            f"{loss}-mnist-fc4",
            f"{title} on MNIST, FC-4 (MM-nsat paper, table 1 and figures 5, 6 and 8, 1,000 epochs). "
            "The paper prints neither width nor learning rate: 256 and 1e-4 are our choice",
            paper="MM-nsat table 1",
            loss=loss, data="mnist", steps=468_750, batch_size=128, depth=4, width=256, lr=1e-4,
        )  # fmt: skip
        add(
            f"{loss}-mnist-conv4",
            f"{title} on MNIST, Conv-4 (MM-nsat paper, figure 8, 1,000 epochs). "
            "The paper prints neither filters nor learning rate: 32 and 1e-4 are our choice",
            paper="MM-nsat figure 8",
            loss=loss, data="mnist", model="conv", steps=468_750, batch_size=128, depth=4, width=32, lr=1e-4,
        )  # fmt: skip
        add(
            f"{loss}-cifar10-conv4",
            f"{title} on CIFAR-10, Conv-4 (MM-nsat paper, figures 1 and 8; with --r1, figure 18; 1,000 epochs). "
            "The paper prints neither filters nor learning rate: 32 and 1e-4 are our choice",
            paper="MM-nsat figure 8",
            loss=loss, data="cifar10", model="conv", steps=390_625, batch_size=128, depth=4, width=32, lr=1e-4,
        )  # fmt: skip


def _add_leakyema(add: Callable[..., None]) -> None:
    """The runs of "Mean Teachers Can Train Superior GANs", and those without a leak that its tables compare with."""
    add(
        "leakyema-digits",
        "LeakyEMA on digits: non-saturating, half of the real samples replaced from step 2,000 on",
        loss="ns", steps=4_000, leak_beta=0.5, leak_start=2_000, **DIGITS,
    )  # fmt: skip
    mean_teachers = "Mean Teachers Can Train Superior GANs"
    # Data set -> the step N at which the leak begins, and where the paper prints it.
    starts = {
        "church": (100_000, "N of figure 12"),
        "bedroom": (80_000, "N of figure 5"),
        "ffhq": (60_000, "N of figure 13"),
    }
    data = {"church": "lsun-church128", "bedroom": "lsun-bedroom128", "ffhq": "ffhq128"}
    rows = {
        "church": "tables 1 (column beta = 0), 3 and 5", "bedroom": "tables 3 and 5", "ffhq": "tables 3 and 5",
    }  # fmt: skip
    for name, (start, printed) in starts.items():
        length = "" if name == "church" else "; the 250,000 steps are those of table 1"
        add(
            f"sngan-{name}128",
            f"{mean_teachers}, {rows[name]}, row SNGAN: {name} at 128 x 128 without a leak{length}",
            paper="LeakyEMA table 3", data=data[name], **SNGAN_128,
        )  # fmt: skip
        add(
            f"leakyema-sngan-{name}128",
            f"{mean_teachers}, tables 3 and 5, row SNGAN+LeakyEMA: {name} at 128 x 128, beta = 0.5, {printed}{length}",
            paper="LeakyEMA table 3", data=data[name], leak_beta=0.5, leak_start=start, **SNGAN_128,
        )  # fmt: skip
    for start in (80_000, 120_000, 140_000):
        add(
            f"leakyema-sngan-church128-{start // 1000}k",
            f"{mean_teachers}, table 1, row N = {start // 1000}k; its columns are --leak-beta 0, 0.25, 0.5 and "
            "0.75 (the row N = 100k is leakyema-sngan-church128)",
            paper="LeakyEMA table 1", data=data["church"], leak_beta=0.5, leak_start=start, **SNGAN_128,
        )  # fmt: skip
    sources = {
        "async-noise": "table 2, column async-noise: the teacher on a z of its own",
        "generator": "section 4.1, random samples of the generator in place of the teacher's",
        "most-realistic": "section 4.1, the generator's samples that the discriminator likes best",
    }
    for source, where in sources.items():
        add(
            f"leakyema-sngan-church128-{source}",
            f"{mean_teachers}, {where}",
            paper=f"LeakyEMA {where.split(',')[0]}",
            data=data["church"], leak_beta=0.5, leak_start=100_000, leak_source=source, **SNGAN_128,
        )  # fmt: skip
    for name, (start, _) in starts.items():
        diverged = "; the paper found that it does not converge" if name == "ffhq" else ""
        for suffix, table, beta1 in (("", "table 3", 0.5), ("-table5", "table 5", 0.0)):
            about = f"{name} at 128 x 128, Adam's beta1 = {beta1:g}{diverged}"
            add(
                f"wgangp-{name}128{suffix}",
                f"{mean_teachers}, {table}, row WGAN-GP: {about}",
                paper=f"LeakyEMA {table}", data=data[name], **WGANGP_128 | {"beta1": beta1},
            )  # fmt: skip
            add(
                f"leakyema-wgangp-{name}128{suffix}",
                f"{mean_teachers}, {table}, row WGAN-GP+LeakyEMA: {about}. The leak's beta = 0.25 is the "
                "paper's; its N is not printed, and SNGAN's on the same data is our choice",
                paper=f"LeakyEMA {table}",
                data=data[name], leak_beta=0.25, leak_start=start, **WGANGP_128 | {"beta1": beta1},
            )  # fmt: skip
    biggan = "the paper refers to the authors' PyTorch code, whose script gives the other settings"
    add(
        "biggan-cifar10",
        f"{mean_teachers}, table 6, row BigGAN on CIFAR-10; {biggan} (but its initial weights are normal, and "
        "here orthogonal)",
        paper="LeakyEMA table 6", **BIGGAN_CIFAR,
    )  # fmt: skip
    add(
        "leakyema-biggan-cifar10",
        f"{mean_teachers}, table 6, row BigGAN+LeakyEMA on CIFAR-10: biggan-cifar10 with a leak. Its beta and N are "
        "not printed: 0.5, the value of section 4.1, and 60,000 are our choice",
        paper="LeakyEMA table 6", leak_beta=0.5, leak_start=60_000, **BIGGAN_CIFAR,
    )  # fmt: skip
    add(
        "biggan-imagenet128",
        f"{mean_teachers}, tables 4 and 6, row BigGAN: ImageNet at 128 x 128, batches of 8 x 256 for one GPU; "
        f"{biggan}. The tables compare with the public checkpoint (138,000 steps), which `gankit import-biggan` reads; "
        "200,000 steps, enough for the collapse of figure 8, are our choice",
        paper="LeakyEMA table 4", **BIGGAN_128,
    )  # fmt: skip
    add(
        "leakyema-biggan-imagenet128",
        f"{mean_teachers}, tables 4 and 6, row BigGAN+LeakyEMA: biggan-imagenet128 with a leak, beta = 0.75 and "
        "N = 120k as in figure 8",
        paper="LeakyEMA table 4", leak_beta=0.75, leak_start=120_000, **BIGGAN_128,
    )  # fmt: skip


recipes: RecipeTable = _table()
"""The named runs: `recipes["mm-nsat-digits"]`. An unknown name lists near matches."""
