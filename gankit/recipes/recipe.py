"""Runs as named records: everything that `gankit train NAME` needs, in one frozen dataclass.

A recipe is data: it can be listed, written to JSON beside a run, compared with another, and built into a
`Trainer`. `gankit.recipes` holds the named ones.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from gankit import data as datasets
from gankit import models
from gankit.data.dataset import Dataset
from gankit.device import PRECISIONS
from gankit.game.leak import SOURCES, Leak
from gankit.game.losses import losses
from gankit.game.penalties import R1, ClipWeights, Dragan, Orthogonal, WganGP
from gankit.game.play import Projection, Term
from gankit.models.ensemble import pair
from gankit.training import Trainer
from gankit.training.average import EMA
from gankit.training.optimisers import SGD, Adam, Optimizer, RMSProp

MODELS: Mapping[str, Callable[..., tuple[nn.Module, nn.Module]]] = {
    "mlp": models.mlp,
    "conv": models.conv,
    "dcgan": models.dcgan,
    "sngan": models.sngan,
    "wgan-gp": models.wgan_gp,
    "projection-gan": models.projection_gan,
    "sagan": models.sagan,
    "biggan-cifar": models.biggan_cifar,
    "biggan": models.biggan,
}
"""Name -> function of the samples' shape (and of the number of classes, where it asks for it) that makes (G, D)."""


def _setting(text: str, default: Any) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Recipe:
    """A run. Every field but the first three has a flag of the same name in `gankit train RECIPE`.

    Attributes:
        name: under which `gankit.recipes` lists it.
        about: what it is, which table and row it belongs to, and what the paper does not print.
        paper: the paper and its table or figure, in short; empty for settings of our own.

    Raises:
        ValueError: if the loss, the model or another name is unknown, or a number is out of range.
    """

    name: str
    about: str
    paper: str = ""
    data: str = _setting("dataset: a name of gankit.data, or a folder or .zip of class folders", "digits")
    size: int | None = _setting("side in pixels to which pictures of a folder are resized", None)
    model: str = _setting(f"networks: {', '.join(MODELS)}", "mlp")
    z_dim: int | None = _setting("length of a latent vector", 64)
    depth: int | None = _setting("weight layers of each network (mlp, conv)", None)
    width: int | None = _setting("hidden units (mlp) or filters next to the picture (the others)", 64)
    y_dim: int | None = _setting("length of the class embedding that all blocks share (biggan)", None)
    d_depth: int | None = _setting("weight layers of the discriminator, where they differ (mlp)", None)
    loss: str = _setting("cost, a name of gankit.losses", "ns")
    steps: int = _setting("generator steps", 2_000)
    batch_size: int = _setting("samples of each kind in a minibatch", 64)
    n_dis: int = _setting("discriminator steps per generator step", 1)
    accumulate: int = _setting("minibatches whose gradients are averaged for one step", 1)
    precision: str = _setting("of products and convolutions: float32 or bfloat16", "float32")
    optimizer: str = _setting("adam, sgd or rmsprop", "adam")
    lr: float = _setting("learning rate", 1e-3)
    d_lr: float | None = _setting("the discriminator's learning rate, where it differs", None)
    beta1: float = _setting("Adam's beta1", 0.5)
    beta2: float = _setting("Adam's beta2", 0.999)
    d_beta2: float | None = _setting("the discriminator's beta2, where it differs", None)
    adam_eps: float = _setting("added to the root of Adam's second mean", 1e-8)
    ema_decay: float = _setting("decay of the averaged generator, per generator step", 0.999)
    ema_start: int = _setting("generator step at which averaging begins", 0)
    leak_beta: float = _setting("LeakyEMA: share of real samples replaced, 0 for none", 0.0)
    leak_start: int = _setting("LeakyEMA: generator step at which leaking begins", 0)
    leak_source: str = _setting(f"LeakyEMA: {', '.join(s for s in SOURCES if s != 'async-model')}", "sync")
    r1: float = _setting("strength gamma of the R1 penalty, 0 for none", 0.0)
    wgan_gp: float = _setting("strength of the WGAN-GP penalty, 0 for none", 0.0)
    dragan: float = _setting("strength of the DRAGAN penalty, 0 for none", 0.0)
    orthogonal: float = _setting("strength of the orthogonal penalty on G's weights, 0 for none", 0.0)
    clip: float = _setting("D's weights are clipped to [-clip, clip] (WGAN), 0 for no clipping", 0.0)

    def __post_init__(self) -> None:
        losses[self.loss]
        if self.model not in MODELS:
            raise ValueError(f"model must be one of {', '.join(MODELS)}, got {self.model!r}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}")
        if self.optimizer not in ("adam", "sgd", "rmsprop"):
            raise ValueError(f"optimizer must be adam, sgd or rmsprop, got {self.optimizer!r}")
        sizes = (
            "size",
            "z_dim",
            "depth",
            "width",
            "y_dim",
            "d_depth",
            "steps",
            "batch_size",
            "n_dis",
            "accumulate",
        )
        for name in sizes:
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        takes = inspect.signature(MODELS[self.model]).parameters
        for name, value in self._sizes().items():
            if name not in takes:
                flag = f"--{name.replace('_', '-')} none"
                raise ValueError(f"model {self.model!r} has no {name}, got {value}; {flag} unsets it")
        # Each checks its own numbers.
        self.optimizers(), self.ema(), self.leak(), self.penalties(), self.g_penalties(), self.projections()

    def networks(self, shape: tuple[int, ...], seed: int, n_classes: int = 0) -> tuple[nn.Module, nn.Module]:
        """(G, D) for samples of this shape, with initial weights drawn from `seed`.

        Args:
            shape: of one sample.
            seed: of the weights, at least 0.
            n_classes: classes of the data; a model without classes does not look at it.

        Raises:
            ValueError: if the model does not fit the shape, or is conditional and there are no classes.
        """
        model = MODELS[self.model]
        sizes = self._sizes()
        if "n_classes" in inspect.signature(model).parameters:
            if n_classes < 1:
                raise ValueError(
                    f"model {self.model!r} learns classes and needs n_classes of at least 1, got {n_classes}"
                )
            sizes["n_classes"] = n_classes
        return model(shape, **sizes, seed=seed)

    def _sizes(self) -> dict[str, int]:
        """The sizes of the networks that are given; the others are the model's own."""
        sizes = {name: getattr(self, name) for name in ("z_dim", "depth", "width", "y_dim", "d_depth")}
        return {name: value for name, value in sizes.items() if value is not None}

    def optimizers(self) -> tuple[Optimizer, Optimizer]:
        """Settings for G and for D."""

        def make(lr: float, beta2: float) -> Optimizer:
            if self.optimizer == "adam":
                return Adam(lr, self.beta1, beta2, self.adam_eps)
            return SGD(lr) if self.optimizer == "sgd" else RMSProp(lr)

        d_lr = self.lr if self.d_lr is None else self.d_lr
        d_beta2 = self.beta2 if self.d_beta2 is None else self.d_beta2
        return make(self.lr, self.beta2), make(d_lr, d_beta2)

    def ema(self) -> EMA:
        """Settings of the averaged generator."""
        return EMA(decay=self.ema_decay, start=self.ema_start)

    def leak(self) -> Leak | None:
        """Settings of LeakyEMA, or None."""
        leak = Leak(self.leak_beta, self.leak_start, self.leak_source)
        return leak if self.leak_beta else None

    def penalties(self) -> list[Term]:
        """Penalties of the discriminator's slope."""
        return [P(w) for P, w in ((R1, self.r1), (WganGP, self.wgan_gp), (Dragan, self.dragan)) if w]

    def g_penalties(self) -> list[Term]:
        """Penalties of the generator's weights."""
        return [Orthogonal(self.orthogonal)] if self.orthogonal else []

    def projections(self) -> list[Projection]:
        """What happens to the discriminator's weights after a step."""
        return [ClipWeights(self.clip)] if self.clip else []

    def build(
        self,
        seeds: Sequence[int] = (0,),
        *,
        root: str | Path | None = None,
        download: bool = False,
        device: str = "auto",
        data: Dataset | None = None,
    ) -> Trainer:
        """The run, ready to `fit`; several seeds make one ensemble run.

        Args:
            seeds: seeds of weights, z and data order.
            root: where datasets lie (see `gankit.data.load`).
            download: fetch the dataset if it is missing.
            device: "auto", "cpu", "cuda" or "cuda:N".
            data: what to train on in place of the data that the recipe names.
        """
        if data is None:
            data = datasets.load(self.data, root=root, size=self.size, download=download)
        networks = partial(self.networks, data.shape, n_classes=data.n_classes)
        G, D = networks(seeds[0]) if len(seeds) == 1 else pair(networks, seeds)
        return self.trainer(G, D, data, seeds, device=device)

    def trainer(
        self, G: nn.Module, D: nn.Module, data: Dataset, seeds: Sequence[int] = (0,), *, device: str = "auto"
    ) -> Trainer:
        """The run on given networks and data; the other arguments are those of `build`."""
        g_optimizer, d_optimizer = self.optimizers()
        return Trainer(
            G,
            D,
            data,
            loss=self.loss,
            seed=seeds[0],
            batch_size=self.batch_size,
            n_dis=self.n_dis,
            accumulate=self.accumulate,
            precision=self.precision,
            g_optimizer=g_optimizer,
            d_optimizer=d_optimizer,
            ema=self.ema(),
            leak=self.leak(),
            d_terms=self.penalties(),
            g_terms=self.g_penalties(),
            projections=self.projections(),
            device=device,
            recipe=dataclasses.asdict(self) | {"seeds": list(seeds)},
        )


def from_dict(values: Mapping[str, Any]) -> tuple[Recipe, tuple[int, ...]]:
    """The recipe and the seeds that a run stored (`Trainer.recipe`)."""
    values = dict(values)
    seeds = tuple(values.pop("seeds"))
    known = {f.name for f in dataclasses.fields(Recipe)}
    return Recipe(**{key: value for key, value in values.items() if key in known}), seeds
