"""Runs as named records: everything that `gankit train NAME` needs, in one frozen dataclass.

A recipe is data: it can be listed, written to JSON beside a run, compared with another, and built into a
`Trainer`. `gankit.recipes` holds the named ones.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from gankit import data as datasets
from gankit import models
from gankit.data.dataset import Dataset
from gankit.device import PRECISIONS
from gankit.game.augment import ADA, AdaptP, Chain, DiffAugment, Flips
from gankit.game.balance import BeganBalance
from gankit.game.classes import LearnClasses, ShowClasses
from gankit.game.consistency import BCR, CR, ZCR, Diversity
from gankit.game.leak import Leak
from gankit.game.losses import losses
from gankit.game.path_length import MeanPathLength, PathLength
from gankit.game.penalties import L2, R1, R2, ClipWeights, Dragan, Drift, Orthogonal, WganGP
from gankit.game.play import Augment, Every, Projection, Rule, Term
from gankit.models.conditioning import Condition
from gankit.models.ensemble import pair
from gankit.models.normalisation import normalisation_of
from gankit.recipes import records
from gankit.recipes.records import Field, register
from gankit.training import Trainer
from gankit.training.average import EMA
from gankit.training.optimisers import SGD, Adam, CosineDecay, LinearDecay, Optimizer, RMSProp

MODELS: dict[str, Callable[..., tuple[nn.Module, nn.Module]]] = {
    "mlp": models.mlp,
    "conv": models.conv,
    "dcgan": models.dcgan,
    "sngan": models.sngan,
    "wgan-gp": models.wgan_gp,
    "began": models.began,
    "began-mlp": models.began_mlp,
    "conv-sn": models.conv_sn,
    "dcgan-bn-sn": models.dcgan_bn_sn,
    "dcgan-attention": models.dcgan_attention,
    "sndcgan": models.sndcgan,
    "projection-gan": models.projection_gan,
    "sagan": models.sagan,
    "biggan-cifar": models.biggan_cifar,
    "biggan": models.biggan,
    "progan": models.progan,
    "stylegan": models.stylegan,
    "stylegan2": models.stylegan2,
    "stylegan2-cifar": models.stylegan2_cifar,
    "r3gan": models.r3gan,
}
"""Name -> function of the samples' shape (and of the number of classes, where it asks for it) that makes (G, D)."""


def _check_count(name: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")


@dataclass(frozen=True)
class Networks:
    """The two networks, as a family of `MODELS` and their sizes; None is the family's own size.

    Attributes:
        family: networks, a name of gankit.recipes.MODELS.
        z_dim: length of a latent vector.
        depth: weight layers of each network (mlp, conv, began-mlp).
        width: hidden units (mlp, began-mlp) or filters next to the picture (the others).
        y_dim: length of the class embedding that all blocks share (biggan), or of a condition's.
        d_depth: weight layers of the discriminator, where they differ (mlp).
        normalisation: of the discriminator (mlp, conv, sngan): "none", spectral, layer or batch.
        g_condition: how the generator reads labels, one-hot, embedding, batch-norm or skip-z (mlp, conv, sngan,
            wgan-gp); none for a generator without classes.
        d_condition: how the discriminator does, concat, concat-hidden, class-head or projection.
        w_dim: length of w (stylegan, stylegan2).
        mapping: layers of the mapping network (stylegan, stylegan2).
        max_width: most filters of a layer (progan, stylegan, stylegan2).
        group: samples whose deviation D sees (progan, stylegan, stylegan2).
        phase: real images in which a layer is faded in, and then trained (progan, stylegan).
        conditional: whether a family that can do without classes learns them (progan, stylegan, stylegan2).

    Raises:
        ValueError: an unknown family or normalisation, a size below 1, one that the family does not have, or a
            condition of one network alone.
    """

    family: str = "mlp"
    z_dim: int | None = 64
    depth: int | None = None
    width: int | None = 64
    y_dim: int | None = None
    d_depth: int | None = None
    normalisation: str | None = None
    g_condition: str | None = None
    d_condition: str | None = None
    w_dim: int | None = None
    mapping: int | None = None
    max_width: int | None = None
    group: int | None = None
    phase: int | None = None
    conditional: bool = False

    def __post_init__(self) -> None:
        if self.family not in MODELS:
            raise ValueError(f"model must be one of {', '.join(MODELS)}, got {self.family!r}")
        takes = inspect.signature(MODELS[self.family]).parameters
        for name, value in self.given.items():
            if name == "normalisation":
                normalisation_of(value)
            else:
                _check_count(name, value)
            if name not in takes and not (name == "y_dim" and self.g_condition):
                flag = f"--{name.replace('_', '-')} none"
                raise ValueError(f"model {self.family!r} has no {name}, got {value}; {flag} unsets it")
        ways = {"g_condition": self.g_condition, "d_condition": self.d_condition}
        if any(ways.values()) and "condition" not in takes:
            able = ", ".join(
                name for name in MODELS if "condition" in inspect.signature(MODELS[name]).parameters
            )
            raise ValueError(f"g_condition and d_condition are for {able}, got model {self.family!r}")
        if any(ways.values()) and not all(ways.values()):
            raise ValueError(f"g_condition and d_condition must be given together, got {ways}")
        self.condition(1)
        if self.conditional and "n_classes" not in takes:
            raise ValueError(f"model {self.family!r} has no classes of its own: conditional must be false")

    def condition(self, n_classes: int) -> Condition | None:
        """How both networks read the labels of so many classes; None where they read none, or their family has its own.

        Raises:
            ValueError: an unknown way.
        """
        if not (self.g_condition and self.d_condition):
            return None
        y_dim = {} if self.y_dim is None else {"y_dim": self.y_dim}
        return Condition(n_classes, self.g_condition, self.d_condition, **y_dim)

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes that are given."""
        names = (
            "z_dim",
            "depth",
            "width",
            "y_dim",
            "d_depth",
            "w_dim",
            "mapping",
            "max_width",
            "group",
            "phase",
        )
        given = {name: getattr(self, name) for name in names}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def given(self) -> dict[str, Any]:
        """The sizes and the normalisation that are given."""
        return self.sizes | ({} if self.normalisation is None else {"normalisation": self.normalisation})

    def __call__(self, shape: tuple[int, ...], seed: int, n_classes: int = 0) -> tuple[nn.Module, nn.Module]:
        """(G, D) for samples of this shape, with initial weights drawn from `seed`.

        Args:
            shape: of one sample.
            seed: of the weights, at least 0.
            n_classes: classes of the data; a family without classes does not look at it.

        Raises:
            ValueError: if the family does not fit the shape, or is conditional and there are no classes.
        """
        model, sizes = MODELS[self.family], self.given
        classes = inspect.signature(model).parameters.get("n_classes")
        own = classes is not None and (self.conditional or classes.default is classes.empty)
        if (own or self.g_condition) and n_classes < 1:
            raise ValueError(
                f"model {self.family!r} learns classes and needs n_classes of at least 1, got {n_classes}"
            )
        if own:
            return model(shape, seed=seed, n_classes=n_classes, **sizes)
        if (condition := self.condition(n_classes)) is not None:
            sizes.pop("y_dim", None)
            return model(shape, seed=seed, condition=condition, **sizes)
        return model(shape, seed=seed, **sizes)


@dataclass(frozen=True)
class Recipe:
    """A run.

    Attributes:
        name: under which `gankit.recipes` lists it.
        about: what it is, which table and row it belongs to, and what the paper does not print.
        paper: the paper and its table or figure, in short; empty for settings of our own.
        data: dataset, a name of gankit.data, or a folder or .zip of class folders.
        size: side in pixels to which pictures of a folder are resized.
        subset: train on so many samples only, the same ones whatever the seed (`Dataset.split`).
        networks: what plays.
        loss: cost, a name of gankit.losses.
        steps: generator steps.
        batch_size: samples of each kind in a minibatch.
        n_dis: discriminator steps per generator step.
        accumulate: minibatches whose gradients are averaged for one step.
        precision: of products and convolutions, float32, tf32 or bfloat16.
        g_optimizer: the generator's optimiser.
        d_optimizer: the discriminator's optimiser.
        ema: the averaged generator.
        leak: LeakyEMA.
        d_terms: added to the discriminator's cost (`gankit.game.penalties`).
        g_terms: added to the generator's cost.
        projections: what happens to the discriminator's weights after a step.
        augment: what happens to images before the discriminator sees them.
        data_augment: what happens to real images alone; mirror images, say.
        freeze_d: blocks of the discriminator next to the image that are not trained.
        rules: states that a step updates.
        share_fakes: G learns from the samples that D saw in its last step, which saves a pass of G.

    Raises:
        ValueError: if the loss or another name is unknown, or a number is out of range.
    """

    name: str
    about: str
    paper: str = ""
    data: str = "digits"
    size: int | None = None
    subset: int | None = None
    networks: Networks = Networks()
    loss: str = "ns"
    steps: int = 2_000
    batch_size: int = 64
    n_dis: int = 1
    accumulate: int = 1
    precision: str = "float32"
    g_optimizer: Optimizer = Adam(1e-3)
    d_optimizer: Optimizer = Adam(1e-3)
    ema: EMA = EMA(0.999)
    leak: Leak | None = None
    d_terms: tuple[Term, ...] = ()
    g_terms: tuple[Term, ...] = ()
    projections: tuple[Projection, ...] = ()
    augment: Augment | None = None
    data_augment: Augment | None = None
    freeze_d: int = 0
    rules: tuple[Rule, ...] = ()
    share_fakes: bool = False

    def __post_init__(self) -> None:
        losses[self.loss]
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}")
        for name in ("size", "subset", "steps", "batch_size", "n_dis", "accumulate"):
            _check_count(name, getattr(self, name))
        if self.freeze_d < 0:
            raise ValueError(f"freeze_d must be at least 0, got {self.freeze_d}")
        for name in ("d_terms", "g_terms", "projections", "rules"):
            if not isinstance(value := getattr(self, name), tuple):
                raise ValueError(f"{name} must be a tuple of records, got {value!r}")

    def changed(self, changes: Mapping[str, Any]) -> Recipe:
        """The recipe with other values.

        Args:
            changes: name -> value. A name is that of a field ("steps", "leak"), a dotted one ("networks.width",
                "d_terms.r1.gamma"), or short (`ALIASES`, and a term's own: "r1" is its strength). A term, a leak or an
                augmentation begins with its first value and ends with a strength of 0. Where a short name stands for
                two fields ("lr"), one that names a single field ("d_lr") has the last word.

        Raises:
            ValueError: an unknown name, with near matches; or a value that is out of range.
        """
        targets = names()
        for name in changes:
            if name not in targets:
                raise ValueError(f"a recipe has no {name!r}{records.near(name, targets)}")
        wide_first = sorted(changes, key=lambda name: -len(targets[name]))
        return records.replaced(self, {at: changes[name] for name in wide_first for at in targets[name]})

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
        if self.subset is not None:
            data = data.split(self.subset).train
        networks = partial(self.networks, data.shape, n_classes=data.n_classes)
        G, D = networks(seeds[0]) if len(seeds) == 1 else pair(networks, seeds)
        return self.trainer(G, D, data, seeds, device=device)

    def trainer(
        self, G: nn.Module, D: nn.Module, data: Dataset, seeds: Sequence[int] = (0,), *, device: str = "auto"
    ) -> Trainer:
        """The run on given networks and data; the other arguments are those of `build`."""
        around = ("name", "about", "paper", "data", "size", "subset", "networks", "steps")
        played = {f.name: getattr(self, f.name) for f in dataclasses.fields(Recipe) if f.name not in around}
        return Trainer(G, D, data, **played, seed=seeds[0], device=device, recipe=self.stored(seeds))

    def stored(self, seeds: Sequence[int]) -> dict[str, Any]:
        """What a checkpoint keeps of the run, so that it can be built again: plain values."""
        return records.plain(self) | {"seeds": list(seeds)}


BUILT_IN = {
    "networks": (Networks,),
    "g_optimizer": (Adam, SGD, RMSProp),
    "d_optimizer": (Adam, SGD, RMSProp),
    "schedule": (LinearDecay, CosineDecay),
    "ema": (EMA,),
    "leak": (Leak,),
    "d_terms": (R1, R2, WganGP, Dragan, L2, Drift, LearnClasses, CR, BCR, ZCR),
    "g_terms": (Orthogonal, PathLength, ShowClasses, Diversity),
    "projections": (ClipWeights,),
    "augment": (DiffAugment, ADA, Chain),
    "data_augment": (Flips,),
    "rules": (BeganBalance, MeanPathLength, AdaptP),
}
"""Field of a recipe, or of a record in it -> the kinds of records that it may hold; `records.register` adds others."""
for kind in (Recipe, Every):
    register()(kind)
for place, kinds in BUILT_IN.items():
    for kind in kinds:
        register(place)(kind)

BOTH = ("g_optimizer", "d_optimizer")
ALIASES: dict[str, tuple[str, tuple[str, ...]]] = {
    "model": ("networks: " + ", ".join(MODELS), ("networks.family",)),
    "z_dim": ("", ("networks.z_dim",)),
    "depth": ("", ("networks.depth",)),
    "width": ("", ("networks.width",)),
    "y_dim": ("", ("networks.y_dim",)),
    "d_depth": ("", ("networks.d_depth",)),
    "normalisation": ("", ("networks.normalisation",)),
    "g_condition": ("", ("networks.g_condition",)),
    "d_condition": ("", ("networks.d_condition",)),
    "optimizer": ("adam, sgd or rmsprop, of both networks", BOTH),
    "lr": ("learning rate of both networks", tuple(f"{one}.lr" for one in BOTH)),
    "d_lr": ("the discriminator's learning rate", ("d_optimizer.lr",)),
    "beta1": ("Adam's beta1 of both networks", tuple(f"{one}.beta1" for one in BOTH)),
    "beta2": ("Adam's beta2 of both networks", tuple(f"{one}.beta2" for one in BOTH)),
    "d_beta2": ("the discriminator's beta2", ("d_optimizer.beta2",)),
    "adam_eps": ("added to the root of Adam's second mean", tuple(f"{one}.eps" for one in BOTH)),
    "schedule": ("linear_decay, cosine_decay or none, of both rates", tuple(f"{one}.schedule" for one in BOTH)),
    "schedule_end": ("generator step at which both rates have fallen", tuple(f"{one}.schedule.end" for one in BOTH)),
    "ema_decay": ("decay of the averaged generator, per generator step", ("ema.decay",)),
    "ema_start": ("", ("ema.start",)),
    "leak_beta": ("LeakyEMA: share of real samples replaced, 0 for none", ("leak.beta",)),
    "leak_start": ("LeakyEMA: generator step at which leaking begins", ("leak.start",)),
    "leak_source": ("LeakyEMA: sync, async-noise, generator, most-realistic", ("leak.source",)),
    "r1": ("strength gamma of the R1 penalty, 0 for none", ("d_terms.r1.gamma",)),
    "l2": ("strength of the L2 penalty on D's weights, 0 for none", ("d_terms.l2.weight",)),
    "wgan_gp": ("strength of the WGAN-GP penalty, 0 for none", ("d_terms.wgan_gp.weight",)),
    "dragan": ("strength of the DRAGAN penalty, 0 for none", ("d_terms.dragan.weight",)),
    "orthogonal": ("strength of the orthogonal penalty on G's weights, 0 for none", ("g_terms.orthogonal.weight",)),
    "flips": ("share of real images that are mirrored, 0 for none", ("data_augment.p",)),
    "clip": ("D's weights are clipped to [-clip, clip] (WGAN), 0 for none", ("projections.clip_weights.limit",)),
}  # fmt: skip
"""Short name -> what it means, where its field does not say it better, and the fields that it stands for."""


def fields() -> list[Field]:
    """What can be set, with all its names: the fields of a recipe, of its records, and of two records at once."""
    found = list(records.fields(Recipe))
    for name, (about, targets) in ALIASES.items():
        i = next(i for i, field in enumerate(found) if field.name == targets[0])
        if len(targets) == 1:
            names = tuple(dict.fromkeys((name, *found[i].names)))
            found[i] = dataclasses.replace(found[i], help=about or found[i].help, names=names)
        else:
            found.insert(i, Field(name, about, found[i].read, (name,)))
    return found


def names() -> dict[str, tuple[str, ...]]:
    """Every name that `Recipe.changed` knows -> the dotted names of the fields that it stands for."""
    known = {f.name: (f.name,) for f in dataclasses.fields(Recipe)}
    known |= {name: (field.name,) for field in fields() for name in field.names}
    return known | {name: targets for name, (_, targets) in ALIASES.items()}


def value(recipe: Recipe, name: str) -> str:
    """What is at any of `names`, as one would type it; of two optimisers that differ, both."""
    found = dict.fromkeys(records.value_at(recipe, target) for target in names()[name])
    return ", ".join("none" if one is None else str(one) for one in found)


def from_dict(values: Mapping[str, Any]) -> tuple[Recipe, tuple[int, ...]]:
    """The recipe and the seeds that a run stored (`Recipe.stored`)."""
    own = {key: value for key, value in values.items() if key != "seeds"}
    return records.revived(own), tuple(values["seeds"])
